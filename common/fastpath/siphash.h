/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012).
 */
#pragma once

#include "packet.h"

struct siphash {
	__u64 v0, v1, v2, v3;
};

ALWAYS __u64 rotated(__u64 x, __u32 by)
{
	return x << by | x >> (64 - by);
}

ALWAYS void sip_round(struct siphash *s)
{
	s->v0 += s->v1;
	s->v1 = rotated(s->v1, 13) ^ s->v0;
	s->v0 = rotated(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotated(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotated(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotated(s->v1, 17) ^ s->v2;
	s->v2 = rotated(s->v2, 32);
}

ALWAYS void sip_block(struct siphash *s, __u64 block)
{
	s->v3 ^= block;
	sip_round(s);
	sip_round(s);
	s->v0 ^= block;
}

/* Of 16 to 23 bytes: two blocks of eight, read as little-endian numbers, and the paper's last one,
 * which holds the remaining bytes and above them the length. */
ALWAYS __u64 siphash_3_blocks(const __u64 key[2], __u64 first, __u64 second, __u64 last)
{
	struct siphash s = {
		.v0 = key[0] ^ 0x736f6d6570736575ULL,
		.v1 = key[1] ^ 0x646f72616e646f6dULL,
		.v2 = key[0] ^ 0x6c7967656e657261ULL,
		.v3 = key[1] ^ 0x7465646279746573ULL,
	};

	sip_block(&s, first);
	sip_block(&s, second);
	sip_block(&s, last);
	s.v2 ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
