/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * TCP options: one walk that finds ours, and shifts the numbers of the others.
 */
#pragma once

#include "packet.h"

/* NOP NOP kind length: timestamps alone (RFC 7323 appendix A), which nearly every segment has. */
enum { PLAIN_TIMESTAMPS = 0x0101080a };

struct options {
	__u8 bytes[MAX_OPTIONS];
};

/* What is added, modulo 2**32, to SACK edges and timestamps. */
struct shifts {
	__u32 sack;
	__u32 value;
	__u32 echo;
};

ALWAYS void shift(__u8 *at, __u32 by)
{
	__u32 number = (__u32)at[0] << 24 | (__u32)at[1] << 16 | (__u32)at[2] << 8 | at[3];

	number += by;
	at[0] = number >> 24;
	at[1] = number >> 16;
	at[2] = number >> 8;
	at[3] = number;
}

/* Shift the numbers in `size` bytes of options; 0 where one is ours, or they cannot be read: both
 * are for the program. Byte by byte, with what is known of the option at hand in a few scalars, so
 * that the verifier sees constant offsets only. A function of its own to the verifier, which looks
 * at it once and not again for every way that leads to it. */
__noinline int shift_options(struct options *o, __u32 size, const struct shifts *by)
{
	__u32 left = 0; /* bytes of the option at hand */
	__u32 words = 0; /* of them to be shifted */
	__u32 phase = 0; /* bytes until the next of these begins */
	__u32 now_by = 0, then_by = 0;
	__u8 kind = OPTION_END; /* of which the length comes next */

	if (!o || !by)
		return 0;
	for (__u32 i = 0; i < MAX_OPTIONS; i++) {
		__u8 byte = o->bytes[i];

		if (i >= size)
			break;
		if (kind != OPTION_END) {
			if (byte < 2 || i - 1 + byte > size)
				return 0;
			left = byte - 2;
			words = phase = 0;
			if (kind == OPTION_TIMESTAMPS && byte == 10) {
				words = 2;
				now_by = by->value;
				then_by = by->echo;
			} else if (kind == OPTION_SACK) {
				words = left / 4;
				now_by = then_by = by->sack;
			}
			kind = OPTION_END;
		} else if (left) {
			if (words && phase == 0 && i <= MAX_OPTIONS - 4) {
				shift(o->bytes + i, now_by);
				now_by = then_by;
				words--;
				phase = 4;
			}
			left--;
			if (phase)
				phase--;
		} else if (byte == OPTION_END) {
			return 1;
		} else if (byte == OPTION_EXPERIMENT) {
			return 0;
		} else if (byte != OPTION_NOP) {
			kind = byte;
		}
	}
	return kind == OPTION_END;
}
