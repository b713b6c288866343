/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Datagrams of clients that have a backend: steered by a record that the program has written when
 * it chose one. All others go up to it.
 */
#pragma once

#include "counters.h"
#include "datagram.h"
#include "kinds.h"

/* One mapping. Times are nanoseconds of CLOCK_MONOTONIC. */
struct mapped {
	__u64 seen; /* the latest datagram */
	__u64 packets;
	__u64 bytes; /* of IP */
	__be32 bridge;
	__u8 dscp_bits; /* as they stand in the type-of-service byte */
	__u8 pad[3];
};

/* By client and service; the client's port is 0 where all of its ports have one backend. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1000000);
	__type(key, struct tuple);
	__type(value, struct mapped);
} mappings SEC(".maps");

ALWAYS struct mapped *mapping_of(const struct segment *s)
{
	struct tuple key = s->key;
	struct mapped *found = bpf_map_lookup_elem(&mappings, &key);

	if (found)
		return found;
	key.sport = 0;
	return bpf_map_lookup_elem(&mappings, &key);
}

static __noinline int steer_datagram(struct __sk_buff *skb, const struct segment *s)
{
	struct mapped *mapping = mapping_of(s);
	struct total wire;
	struct hop next;
	__u8 tos;

	if (!mapping || s->ttl < 2)
		return NOT_OURS;
	tos = mapping->dscp_bits | (s->tos & ECN_BITS);
	next = way_out(skb, s, IPPROTO_UDP, s->key.src, mapping->bridge, tos);
	wire = on_wire(skb, s);
	if (!next.interface) {
		count(DATAGRAMS_UNROUTED, &wire);
		skb->mark = MARK;
	}
	if (!write_ip(skb, s, s->key.src, mapping->bridge, tos, next.interface != 0) ||
	    !mend_udp(skb, s, change(s->key.dst, mapping->bridge)))
		return TC_ACT_SHOT;
	note_seen(&mapping->seen, about_now());
	/* a client has many ports, which come in on several processors at a time */
	__sync_fetch_and_add(&mapping->packets, wire.packets);
	__sync_fetch_and_add(&mapping->bytes, wire.bytes);
	count(DATAGRAMS, &wire);
	/* what the stack forwards, it counts the hop of */
	return next.interface ? send_on(&next) : NOT_OURS;
}
