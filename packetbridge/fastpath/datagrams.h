/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Datagrams in the kernel: what packetbridge/core/datagrams does in Python. The way up needs no
 * memory but the ways in; each datagram makes or refreshes the record of the way down.
 */
#pragma once

#include "counters.h"
#include "datagram.h"

/* A way in: what balancers steer datagrams to. */
struct door_key {
	__be32 address; /* of this bridge */
	__be16 port;
	__u8 dscp;
	__u8 pad;
};

struct door {
	__be32 server;
	__be32 vip;
	__be16 server_port;
	__u8 up_hop; /* to take off the TTL */
	__u8 down_hop;
	__u8 onward; /* the server is on another host: sent on from here */
	__u8 asks; /* there are clients that the server sees otherwise: `guises` has them */
	__u8 own; /* it sees none as they are */
	__u8 known; /* for those that it has: the first datagram of any other is Python's */
	__u32 mark; /* of packets to a server on this host */
	__u32 pad;
	__u64 idle; /* nanoseconds of silence, after which a client is forgotten */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct door_key);
	__type(value, struct door);
} doors SEC(".maps");

/* What went by a way in; each processor has its own sums. The records are Python's to make. */
struct carried {
	__u64 mappings; /* begun here */
	__u64 up_bytes; /* of IP */
	__u64 down_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct door_key);
	__type(value, struct carried);
} carriage SEC(".maps");

/* The way down: what becomes of a server's answers, by their addresses and ports. Which of the
 * records the map lets go when it is full is the one that was not used for longest, or near it. */
struct answer {
	__u64 seen; /* nanoseconds of CLOCK_MONOTONIC: the latest datagram, either way, */
	__u64 began; /* and the first */
	__u64 idle;
	struct tuple to; /* from the VIP to the client */
	__be32 bridge; /* with the ports, and the DSCP: how the client's come in */
	__u8 dscp;
	__u8 hop;
	__u8 onward;
	__u8 slow; /* Python translates it for now, both ways */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct tuple);
	__type(value, struct answer);
} mappings SEC(".maps");

/* A client's datagrams as they come to this bridge. */
struct guise_key {
	struct tuple tuple;
	__u8 dscp;
	__u8 pad[3];
};

/* As what the server sees them: written by Python, where that is not the client's own. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct guise_key);
	__type(value, struct tuple);
} guises SEC(".maps");

/* Whether any record is `slow`, or may be. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} watching SEC(".maps");

ALWAYS int watched(void)
{
	__u32 zero = 0, *any = bpf_map_lookup_elem(&watching, &zero);

	return !any || *any;
}

/* Answers in fragments: the first has the ports, and says for the others what becomes of them. */
struct fragment_key {
	__be32 src;
	__be32 dst;
	__be16 id;
	__u16 pad;
};

struct fragment {
	__be32 src;
	__be32 dst;
	struct door_key door;
	__u8 hop;
	__u8 onward;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

enum {
	DATAGRAMS_UP = 2, /* of totals */
	DATAGRAMS_DOWN = 3,
	LOW_TTL = 2, /* from which on a hop may be one too many; servers send with 64 */
	MORE_FRAGMENTS = 0x2000,
	OFFSET = 0x1fff,
};

/* What kind of packet it is. */
enum shape {
	OTHER, /* not of UDP, or nothing that is translated here */
	WHOLE,
	FIRST, /* fragment */
	LATER,
};

/* Read the headers of one fragment of a datagram, without IP options, as read_datagram does a whole
 * one's; of a later fragment's key the addresses alone. `id` is the IP header's. */
ALWAYS enum shape read_fragment(struct __sk_buff *skb, __u32 ip_at, struct segment *s, __be16 *id)
{
	struct iphdr ip;
	struct udphdr udp;
	__u16 fragment;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ip_at, &ip, sizeof(ip)))
		return OTHER;
	fragment = bpf_ntohs(ip.frag_off);
	if (ip.version != 4 || ip.ihl * 4 != sizeof(ip) || ip.protocol != IPPROTO_UDP ||
	    !(fragment & IP_FRAGMENT))
		return OTHER;
	s->ip_at = ip_at;
	s->tcp_at = ip_at + sizeof(ip);
	s->length = bpf_ntohs(ip.tot_len);
	if (s->length <= sizeof(ip) || skb->len - ip_at < s->length)
		return OTHER;
	s->payload = s->length - sizeof(ip);
	s->key.src = ip.saddr;
	s->key.dst = ip.daddr;
	s->tos = ip.tos;
	s->ttl = ip.ttl;
	s->protocol = IPPROTO_UDP;
	*id = ip.id;
	if (fragment & OFFSET)
		return LATER; /* the last one may be shorter than UDP's header */
	if (s->payload < sizeof(udp) || bpf_skb_load_bytes(skb, s->tcp_at, &udp, sizeof(udp)) ||
	    !udp.source || !udp.dest)
		return OTHER;
	s->key.sport = udp.source;
	s->key.dport = udp.dest;
	return FIRST;
}

ALWAYS enum shape read_any(struct __sk_buff *skb, __u32 ip_at, struct segment *s, __be16 *id)
{
	return read_datagram(skb, ip_at, s) ? WHOLE : read_fragment(skb, ip_at, s, id);
}

/* Write a datagram's new addresses and ports in their place; 0 where that fails midway. The ports
 * are no part of what a card, or the stack, sums up later (CHECKSUM_PARTIAL): the addresses are. */
ALWAYS int rewrite(struct __sk_buff *skb, const struct segment *s, const struct tuple *to, __u8 hop)
{
	__u32 check = s->tcp_at + offsetof(struct udphdr, check);
	__be32 old, new;

	__builtin_memcpy(&old, &s->key.sport, sizeof(old));
	__builtin_memcpy(&new, &to->sport, sizeof(new));
	if (old != new && (bpf_l4_csum_replace(skb, check, 0, folded(change(old, new)),
					       BPF_F_MARK_MANGLED_0) ||
			   bpf_skb_store_bytes(skb, s->tcp_at, &new, sizeof(new), 0)))
		return 0;
	return mend_udp(skb, s, change(s->key.src, to->src) + change(s->key.dst, to->dst)) &&
	       write_ip(skb, s, to->src, to->dst, s->tos & ECN_BITS, hop);
}

ALWAYS void count_up(const struct __sk_buff *skb, const struct segment *s, int begun)
{
	const struct total wire = on_wire(skb, s);
	const struct door_key key = {
		.address = s->key.dst, .port = s->key.dport, .dscp = s->tos >> 2,
	};
	struct carried *carried = bpf_map_lookup_elem(&carriage, &key);

	count(DATAGRAMS_UP, &wire);
	if (carried) {
		carried->mappings += begun;
		carried->up_bytes += wire.bytes;
	}
}

ALWAYS void count_down(const struct __sk_buff *skb, const struct segment *s,
		       const struct door_key *key)
{
	const struct total wire = on_wire(skb, s);
	struct carried *carried = bpf_map_lookup_elem(&carriage, key);

	count(DATAGRAMS_DOWN, &wire);
	if (carried)
		carried->down_bytes += wire.bytes;
}

ALWAYS int is_same(const struct answer *answer, const struct segment *s, const struct door *door)
{
	return answer->to.dst == s->key.src && answer->to.dport == s->key.sport &&
	       answer->to.src == door->vip && answer->to.sport == s->key.dport &&
	       answer->bridge == s->key.dst && answer->dscp == s->tos >> 2;
}

/* Whether a record still counts. Another processor may have written a time later than `now`, which
 * was read before: that is no long silence. */
ALWAYS int is_current(const struct answer *answer, __u64 now)
{
	return (__s64)(now - answer->seen) <= (__s64)answer->idle;
}

enum noted { FOR_PYTHON, KNOWN, BEGUN };

/* Note that a client's datagram goes to the server as `to`, so that the answer finds back. */
ALWAYS enum noted note_mapping(const struct segment *s, const struct door *door, const struct tuple *to)
{
	const struct tuple key = {
		.src = to->dst, .dst = to->src, .sport = to->dport, .dport = to->sport,
	};
	struct answer *known = bpf_map_lookup_elem(&mappings, &key);
	__u64 now = about_now();
	struct answer answer = {
		.seen = now,
		.began = now,
		.idle = door->idle,
		.to = {
			.src = door->vip, .dst = s->key.src, .sport = s->key.dport, .dport = s->key.sport,
		},
		.bridge = s->key.dst,
		.dscp = s->tos >> 2,
		.hop = door->down_hop,
		.onward = door->onward,
	};

	if (known && is_current(known, now)) {
		if (!is_same(known, s, door) || known->slow)
			return FOR_PYTHON; /* another VIP's: the client gets another port */
		note_seen(&known->seen, now);
		return KNOWN;
	}
	if (door->known || bpf_map_update_elem(&mappings, &key, &answer, BPF_ANY))
		return FOR_PYTHON;
	return BEGUN;
}

/* A client's datagram, steered here. */
ALWAYS int go_up(struct __sk_buff *skb, const struct segment *s, const struct door *door)
{
	const struct guise_key key = { .tuple = s->key, .dscp = s->tos >> 2 };
	struct tuple to = {
		.src = s->key.src, .dst = door->server, .sport = s->key.sport, .dport = door->server_port,
	};
	const struct tuple *guise;
	enum noted noted;
	__u8 hop = door->up_hop;
	struct hop next = {};

	if (door->asks) {
		guise = bpf_map_lookup_elem(&guises, &key);
		if (guise)
			to = *guise;
		else if (door->own)
			return NOT_OURS;
	}
	if (s->ttl <= hop)
		return NOT_OURS;
	if (door->onward) {
		next = way_out(skb, s, IPPROTO_UDP, to.src, to.dst, s->tos & ECN_BITS);
		if (!next.interface || s->ttl < 2)
			return NOT_OURS;
		hop = 1;
	}
	noted = note_mapping(s, door, &to);
	if (noted == FOR_PYTHON)
		return NOT_OURS;
	if (!rewrite(skb, s, &to, hop))
		return TC_ACT_SHOT;
	count_up(skb, s, noted == BEGUN);
	if (next.interface)
		return send_on(&next);
	skb->mark = door->mark;
	return NOT_OURS;
}

/* The record of a server's datagram; none where it is nobody's of ours. */
ALWAYS struct answer *answer_of(const struct segment *s)
{
	struct answer *answer = bpf_map_lookup_elem(&mappings, &s->key);

	return answer && is_current(answer, about_now()) ? answer : NULL;
}

/* A server's datagram, or the first fragment of one. `onward`: it came in here, and is sent on. */
ALWAYS int go_down(struct __sk_buff *skb, const struct segment *s, struct answer *answer,
		   enum shape shape, __be16 id, __u8 onward)
{
	const struct fragment_key key = { .src = s->key.src, .dst = s->key.dst, .id = id };
	const struct fragment as = {
		.src = answer->to.src,
		.dst = answer->to.dst,
		.door = {
			.address = answer->bridge, .port = answer->to.sport, .dscp = answer->dscp,
		},
		.hop = answer->hop,
		.onward = onward,
	};
	__u8 hop = answer->hop;
	struct hop next = {};

	if (onward) {
		next = way_out(skb, s, IPPROTO_UDP, answer->to.src, answer->to.dst, s->tos & ECN_BITS);
		if (!next.interface || s->ttl < 2)
			return NOT_OURS;
		hop = 1;
	}
	if (shape == FIRST && bpf_map_update_elem(&fragments, &key, &as, BPF_ANY))
		return TC_ACT_SHOT;
	if (!rewrite(skb, s, &answer->to, hop))
		return TC_ACT_SHOT;
	note_seen(&answer->seen, about_now());
	count_down(skb, s, &as.door);
	return next.interface ? send_on(&next) : NOT_OURS;
}

/* A later fragment: it has nothing to change but the IP header. */
ALWAYS int follow_first(struct __sk_buff *skb, struct segment *s, __be16 id, __u8 onward)
{
	const struct fragment_key key = { .src = s->key.src, .dst = s->key.dst, .id = id };
	const struct fragment *as = bpf_map_lookup_elem(&fragments, &key);
	__u8 hop;
	struct hop next = {};

	if (!as || as->onward != onward)
		return NOT_OURS;
	hop = as->hop;
	if (onward) {
		next = way_out(skb, s, IPPROTO_UDP, as->src, as->dst, s->tos & ECN_BITS);
		if (!next.interface || s->ttl < 2)
			return NOT_OURS;
		hop = 1;
	}
	if (!write_ip(skb, s, as->src, as->dst, s->tos & ECN_BITS, hop))
		return TC_ACT_SHOT;
	count_down(skb, s, &as->door);
	return next.interface ? send_on(&next) : NOT_OURS;
}

/* What comes in and is no segment. */
static __noinline int incoming_datagram(struct __sk_buff *skb)
{
	struct segment s = {};
	struct door_key key = {};
	struct answer *answer;
	struct door *door;
	__be16 id = 0;
	enum shape shape = read_any(skb, ETH_HLEN, &s, &id);

	if (shape == OTHER)
		return NOT_OURS;
	if (shape == LATER)
		return follow_first(skb, &s, id, 1);
	key.address = s.key.dst;
	key.port = s.key.dport;
	key.dscp = s.tos >> 2;
	door = bpf_map_lookup_elem(&doors, &key);
	if (door) /* a fragment is the stack's to put together, if anybody's */
		return shape == WHOLE ? go_up(skb, &s, door) : NOT_OURS;
	answer = answer_of(&s);
	if (!answer || !answer->onward || answer->slow)
		return NOT_OURS;
	return go_down(skb, &s, answer, shape, id, 1);
}

/* What leaves and is no segment: of a server on this host, unless it was queued before. */
static __noinline int outgoing_datagram(struct __sk_buff *skb)
{
	struct segment s = {};
	struct answer *answer;
	__be16 id = 0;
	enum shape shape = read_any(skb, ETH_HLEN, &s, &id);

	if (shape == OTHER)
		return NOT_OURS;
	if (shape == LATER)
		return follow_first(skb, &s, id, 0);
	answer = answer_of(&s);
	if (!answer || answer->onward || s.ttl <= answer->hop)
		return NOT_OURS;
	return go_down(skb, &s, answer, shape, id, 0);
}

/* Whether a server's packet that is no segment is for Python. It is seldom asked: see `unusual`. */
static __noinline int unusual_datagram(struct __sk_buff *skb)
{
	struct segment s = {};
	struct answer *answer;

	if (!read_datagram(skb, 0, &s))
		return 1;
	answer = answer_of(&s);
	return answer && (answer->slow || s.ttl <= answer->hop);
}
