/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * SYN cookies, as balancer/core/cookie.py makes and checks them: it says what they hold, and why.
 */
#pragma once

#include "siphash.h"

enum {
	COOKIE_EPOCH = 64, /* seconds */
	COOKIE_INPUT = 21, /* bytes that are hashed: addresses, ports, c, epoch, the low byte */
};

ALWAYS __u32 cookie_mac(const __u64 key[2], const struct tuple *t, __u32 c, __u32 epoch, __u8 low)
{
	__u64 addresses = (__u64)bpf_ntohl(t->src) << 32 | bpf_ntohl(t->dst);
	__u64 ports_c = (__u64)bpf_ntohs(t->sport) << 48 | (__u64)bpf_ntohs(t->dport) << 32 | c;
	__u64 rest = (__u64)epoch << 32 | (__u64)low << 24;

	return siphash_3_blocks(key, __builtin_bswap64(addresses), __builtin_bswap64(ports_c),
				__builtin_bswap64(rest) | (__u64)COOKIE_INPUT << 56) >> 40;
}

/* The initial sequence number for a SYN that begins with `c`; `wall` in seconds since 1970. */
ALWAYS __u32 make_cookie(const __u64 key[2], const struct tuple *t, __u32 c, __u64 wall, __u32 mss,
			 __u8 sack, __u8 scale)
{
	__u32 epoch = wall / COOKIE_EPOCH;
	__u8 step = (mss >= 1220) + (mss >= 1400) + (mss >= 1460);
	__u8 low = (epoch & 1) << 7 | step << 5 | sack << 4 | scale;

	return cookie_mac(key, t, c, epoch, low) << 8 | low;
}

/* Whether `b` is one of this epoch or the one before, made for who began with `c`. */
ALWAYS int is_cookie(const __u64 key[2], const struct tuple *t, __u32 c, __u32 b, __u64 wall)
{
	__u32 epoch = wall / COOKIE_EPOCH;
	__u8 low = b;

	if ((epoch & 1) != low >> 7)
		epoch--;
	return cookie_mac(key, t, c, epoch, low) == b >> 8;
}
