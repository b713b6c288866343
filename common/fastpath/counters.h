/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * What is counted of packets: for each connection in its record, and in all.
 */
#pragma once

#include "packet.h"

enum { TOTALS = 8 }; /* kinds of packets that a program tells apart, at most */

struct total {
	__u64 packets;
	__u64 bytes; /* of IP */
};

/* By kind. Each processor has its own, so that none waits for another; whoever reads adds them. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TOTALS);
	__type(key, __u32);
	__type(value, struct total);
} totals SEC(".maps");

/* What a packet is on the wire: one of many segments (GSO, GRO) is cut into packets with headers of
 * their own. Counted here, as drivers of virtual machines leave gso_segs to be found out later. */
ALWAYS struct total on_wire(const struct __sk_buff *skb, const struct segment *s)
{
	struct total wire = { .packets = 1, .bytes = s->length };
	__u32 size = skb->gso_size;

	if (size && s->payload > size) {
		wire.packets = (s->payload + size - 1) / size;
		wire.bytes += (wire.packets - 1) * (s->length - s->payload);
	}
	return wire;
}

ALWAYS void count(__u32 kind, const struct total *wire)
{
	struct total *total = bpf_map_lookup_elem(&totals, &kind);

	if (total) {
		total->packets += wire->packets;
		total->bytes += wire->bytes;
	}
}
