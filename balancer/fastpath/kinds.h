/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * What becomes of packets in the kernel: the kinds that are counted, and what is left to the stack.
 */
#pragma once

enum { MARK = 0x4c340000 }; /* of what the stack is to forward: see balancer/core/rules.py */

/* Kinds of packets that are counted; balancer/program/fast_path.py has their names. */
enum { STEERED, UNROUTED, ANSWERED, ARRIVED, DATAGRAMS, DATAGRAMS_UNROUTED };
