/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The client's handshake, as balancer/core/handshake.py does it: a SYN is answered from a cookie
 * alone, and who acknowledges the cookie is reported to the program. What is unusual goes up to it.
 */
#pragma once

#include "cookie.h"
#include "counters.h"
#include "kinds.h"
#include "offer.h"

enum {
	TTL = 64,
	BESIDE_SYN = 0xc0 | 0x08, /* ECE and CWR offer ECN, which is declined; PSH comes with data */
	MAX_ROUND_TRIP = 60000, /* milliseconds; an older echo says nothing of the path */
};

struct endpoint {
	__be32 vip;
	__be16 port;
	__u16 pad;
};

/* What the SYNs for a service are answered with. Times are nanoseconds of CLOCK_MONOTONIC. */
struct terms {
	__u64 cookie_key[2]; /* as little-endian numbers */
	__u64 until; /* the program says every second that it is there to go on with who connects */
	__u64 wall_offset; /* what added to the clock gives the time since 1970 */
	__u16 mss;
	__u16 window;
	__u8 scale;
	__u8 sack; /* whether these are promised to who offers them, */
	__u8 timestamps;
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct endpoint);
	__type(value, struct terms);
} services SEC(".maps");

/* A client that has proven its address, and has not asked anything yet. */
struct arrival {
	struct tuple key;
	__u32 c;
	__u32 b;
	__u32 round_trip; /* milliseconds, 0 where its timestamps do not tell */
	__u64 seen;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 17); /* bytes: some 3000 records, which are read in one go */
} arrivals SEC(".maps");

/* Our timestamps clock: milliseconds (RFC 7323 section 5.4 allows 1 ms to 1 s). */
ALWAYS __u32 ticks(__u64 wall)
{
	return wall / 1000000;
}

ALWAYS __u64 sum_of(const __be32 *words, __u32 count)
{
	__u64 sum = 0;

	for (__u32 i = 0; i < count; i++)
		sum += words[i];
	return sum;
}

ALWAYS int put(struct __sk_buff *skb, __u32 at, const __be32 *words, __u32 count, __u64 *sum)
{
	*sum += sum_of(words, count);
	return bpf_skb_store_bytes(skb, at, words, count * 4, 0);
}

/* The sum of all words' complements: what is to go from a checksum when they do. */
ALWAYS __u64 without(const __be32 *words, __u32 count)
{
	__u64 sum = 0;

	for (__u32 i = 0; i < count; i++)
		sum += (__u32)~words[i];
	return sum;
}

/* Whether a segment without payload came as it was sent. One that has not been on a wire yet, as
 * between virtual machines, has the sum of its pseudo-header only. */
ALWAYS int is_sound(const struct segment *s, const struct tcphdr *tcp, const struct options *options)
{
	__u64 pseudo = (__u64)s->key.src + s->key.dst + bpf_htons(IPPROTO_TCP) +
		       bpf_htons(sizeof(*tcp) + s->options);
	__u64 all = pseudo + sum_of((const __be32 *)tcp, sizeof(*tcp) / 4) +
		    sum_of((const __be32 *)options, sizeof(*options) / 4);

	return folded_twice(all) == 0xffff || tcp->check == folded_twice(pseudo);
}

/* How many bytes of options answer an offer: what was not offered is not mentioned. */
ALWAYS __u32 options_size(const struct offer *offer)
{
	__u32 size = 4; /* MSS */

	if (offer->stamped)
		size += 12;
	else if (offer->sack)
		size += 4;
	return offer->scale == NO_SCALE ? size : size + 4;
}

/* Write them, and add them up; 0 where that fails. */
ALWAYS int put_options(struct __sk_buff *skb, __u32 at, const struct offer *offer,
		       const struct terms *terms, __u64 wall, __u64 *sum)
{
	__be32 mss = bpf_htonl(OPTION_MSS << 24 | 4 << 16 | terms->mss);
	__be32 sack = bpf_htonl(0x01010402);
	__be32 scale = bpf_htonl(0x01030300 | terms->scale);
	__be32 stamps[] = {
		bpf_htonl((offer->sack ? 0x0402 : 0x0101) << 16 | 0x080a),
		bpf_htonl(ticks(wall)),
		bpf_htonl(offer->value),
	};

	if (put(skb, at, &mss, 1, sum))
		return 0;
	at += sizeof(mss);
	if (offer->stamped) {
		if (put(skb, at, stamps, 3, sum))
			return 0;
		at += sizeof(stamps);
	} else if (offer->sack) {
		if (put(skb, at, &sack, 1, sum))
			return 0;
		at += sizeof(sack);
	}
	return offer->scale == NO_SCALE || !put(skb, at, &scale, 1, sum);
}

/* Make the SYN-ACK of a SYN, in its place; 0 where that fails midway. The checksum is brought up to
 * date by the difference, so that what the card has still to compute it computes. */
ALWAYS int make_syn_ack(struct __sk_buff *skb, const struct segment *s, struct tcphdr *tcp,
			const struct options *old, const struct offer *offer,
			const struct terms *terms, __u64 wall)
{
	__u32 size = options_size(offer), check = s->tcp_at + offsetof(struct tcphdr, check);
	__u32 length = sizeof(struct iphdr) + sizeof(*tcp) + size;
	struct iphdr ip = {
		.version = 4,
		.ihl = sizeof(ip) / 4,
		.tot_len = bpf_htons(length),
		.ttl = TTL,
		.protocol = IPPROTO_TCP,
		.frag_off = bpf_htons(0x4000), /* do not fragment */
		.saddr = s->key.dst,
		.daddr = s->key.src,
	};
	__u64 sum = without((const __be32 *)tcp, sizeof(*tcp) / 4) +
		    without((const __be32 *)old, sizeof(*old) / 4);

	if (skb->len != ETH_HLEN + length && bpf_skb_change_tail(skb, ETH_HLEN + length, 0))
		return 0;
	ip.check = ~folded_twice(sum_of((const __be32 *)&ip, sizeof(ip) / 4));
	tcp->source = s->key.dport;
	tcp->dest = s->key.sport;
	tcp->ack_seq = bpf_htonl(s->seq + 1);
	tcp->seq = bpf_htonl(make_cookie(terms->cookie_key, &s->key, s->seq, wall / 1000000000,
					offer->mss, offer->sack, offer->scale));
	((__u8 *)tcp)[12] = (sizeof(*tcp) + size) / 4 << 4;
	((__u8 *)tcp)[13] = SYN | ACK;
	tcp->window = bpf_htons(terms->window);
	tcp->urg_ptr = 0;
	sum += sum_of((const __be32 *)tcp, sizeof(*tcp) / 4);
	if (bpf_skb_store_bytes(skb, s->ip_at, &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, s->tcp_at, tcp, sizeof(*tcp), 0) ||
	    !put_options(skb, s->tcp_at + sizeof(*tcp), offer, terms, wall, &sum))
		return 0;
	/* the length of TCP is in the pseudo-header (RFC 9293 section 3.1) */
	return !bpf_l4_csum_replace(skb, check, 0, folded(sum), 0) &&
	       !bpf_l4_csum_replace(skb, check, bpf_htons(s->length), bpf_htons(length),
				    BPF_F_PSEUDO_HDR | 2);
}

/* Answer a SYN where it came from; by another interface, or by none, is the stack's to judge. */
static __noinline int answer_syn(struct __sk_buff *skb, const struct segment *s,
				 const struct terms *terms, __u64 now)
{
	struct offer offer = { .mss = DEFAULT_MSS, .scale = NO_SCALE };
	struct options options = {};
	struct tcphdr tcp;
	struct total wire;

	if (s->options && (!load_options(skb, s, &options) ||
			   !read_offer(&options, s->options, &offer)))
		return NOT_OURS;
	if (bpf_skb_load_bytes(skb, s->tcp_at, &tcp, sizeof(tcp)) || !is_sound(s, &tcp, &options))
		return NOT_OURS;
	offer.sack &= terms->sack;
	offer.stamped &= terms->timestamps;
	if (way_out(skb, s, IPPROTO_TCP, s->key.dst, s->key.src, 0).interface != skb->ifindex)
		return NOT_OURS;
	wire = on_wire(skb, s);
	count(ANSWERED, &wire);
	if (!make_syn_ack(skb, s, &tcp, &options, &offer, terms, now + terms->wall_offset))
		return TC_ACT_SHOT;
	/* not by send_on: there is no room left on the stack of Linux 6.1 */
	return bpf_redirect_neigh(skb->ifindex, NULL, 0, 0);
}

/* No wake-up: the program looks before it judges what the client sends next. Not inlined, so that the
 * object's BTF describes what is reported. */
static __noinline long report(struct arrival *arrival)
{
	return bpf_ringbuf_output(&arrivals, arrival, sizeof(*arrival), BPF_RB_NO_WAKEUP);
}

/* Report who acknowledges a cookie; what the buffer has no room for goes up. */
static __noinline int report_arrival(struct __sk_buff *skb, const struct segment *s,
				     const struct terms *terms, __u64 now)
{
	__u64 wall = now + terms->wall_offset;
	struct arrival arrival = {
		.key = s->key,
		.c = s->seq - 1,
		.b = s->ack - 1,
		.seen = now,
	};
	__be32 stamps[3];
	struct total wire;

	if (s->options == sizeof(stamps)) {
		if (bpf_skb_load_bytes(skb, s->tcp_at + sizeof(struct tcphdr), stamps,
				       sizeof(stamps)) ||
		    stamps[0] != bpf_htonl(PLAIN_TIMESTAMPS))
			return NOT_OURS;
		arrival.round_trip = ticks(wall) - bpf_ntohl(stamps[2]);
		if (arrival.round_trip >= MAX_ROUND_TRIP)
			arrival.round_trip = 0;
	} else if (s->options) {
		return NOT_OURS;
	}
	if (!is_cookie(terms->cookie_key, &s->key, arrival.c, arrival.b, wall / 1000000000))
		return NOT_OURS;
	if (report(&arrival))
		return NOT_OURS;
	wire = on_wire(skb, s);
	count(ARRIVED, &wire);
	return TC_ACT_SHOT;
}

/* A packet of no connection that is known here. */
ALWAYS int shake_hands(struct __sk_buff *skb, const struct segment *s)
{
	struct endpoint at = { .vip = s->key.dst, .port = s->key.dport };
	const struct terms *terms = bpf_map_lookup_elem(&services, &at);
	__u64 now = bpf_ktime_get_ns();

	if (!terms || now >= terms->until || s->payload)
		return NOT_OURS;
	if ((s->flags & ~BESIDE_SYN) == SYN)
		return answer_syn(skb, s, terms, now);
	if (s->flags == ACK)
		return report_arrival(skb, s, terms, now);
	return NOT_OURS;
}
