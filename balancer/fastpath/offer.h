/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * What a SYN offers, by its options (RFC 9293 section 3.2, RFC 7323, RFC 2018).
 */
#pragma once

#include "options.h"

enum {
	OPTION_MSS = 2,
	OPTION_SCALE = 3,
	OPTION_SACK_PERMITTED = 4,
	OPTION_MD5 = 19, /* RFC 2385 */
	OPTION_AUTHENTICATION = 29, /* RFC 5925 */
	DEFAULT_MSS = 536,
	MAX_SCALE = 14,
	NO_SCALE = 15,
};

struct offer {
	__u32 mss;
	__u32 value; /* TSval, where it is `stamped` */
	__u8 stamped;
	__u8 sack;
	__u8 scale;
	__u8 pad;
};

/* Read the `size` bytes of a SYN's options; 0 where they are for the program: cannot be read, are
 * signed, or one may be ours. Apart and byte by byte for the verifier: see shift_options. */
__noinline int read_offer(const struct options *o, __u32 size, struct offer *offer)
{
	__u32 left = 0; /* bytes of the option at hand */
	__u32 number = 0; /* the last four of those before */
	__u8 kind = OPTION_END, length = 0, begun = 0; /* its length comes next */

	if (!o || !offer)
		return 0;
	for (__u32 i = 0; i < MAX_OPTIONS; i++) {
		__u8 byte = o->bytes[i];

		if (i >= size)
			break;
		if (begun) {
			if (byte < 2 || i - 1 + byte > size)
				return 0;
			begun = 0;
			length = byte;
			left = byte - 2;
			if (kind == OPTION_SACK_PERMITTED && byte == 2)
				offer->sack = 1;
		} else if (left) {
			left--;
			number = number << 8 | byte;
			if (kind == OPTION_MSS && length == 4 && left == 0) {
				offer->mss = number & 0xffff;
			} else if (kind == OPTION_SCALE && length == 3) {
				offer->scale = byte > MAX_SCALE ? MAX_SCALE : byte;
			} else if (kind == OPTION_TIMESTAMPS && length == 10 && left == 4) {
				offer->value = number;
				offer->stamped = 1;
			}
			if (left == 0)
				number = 0;
		} else if (byte == OPTION_END) {
			return 1;
		} else if (byte == OPTION_EXPERIMENT || byte == OPTION_MD5 ||
			   byte == OPTION_AUTHENTICATION) {
			return 0;
		} else if (byte != OPTION_NOP) {
			kind = byte;
			begun = 1;
		}
	}
	return !begun;
}
