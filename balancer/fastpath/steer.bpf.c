/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Steering in the kernel: packets of connections that a bridge has go on to it from here, at tc
 * ingress, and so do datagrams of clients that have a backend; new clients' handshakes are done. All
 * else goes up, to netfilter and so to the program, which writes the records.
 */
#include "datagrams.h"
#include "handshake.h"

/* One connection at a bridge. Times are nanoseconds of CLOCK_MONOTONIC. */
struct steered {
	__u64 seen; /* the latest packet */
	__u64 packets; /* and bytes of IP: plain sums, as one processor has a connection at a time */
	__u64 bytes;
	__be32 bridge;
	__u32 first; /* sequence number of the request's first byte, c + 1 */
	__u32 b; /* our own initial sequence number: nothing to steering, but a restart needs it */
	__u32 handoff_bytes; /* what starts within them is the handoff, repeated: not for us */
	__u8 dscp_bits; /* as they stand in the type-of-service byte */
	__u8 suspect; /* a SYN was seen: a new incarnation may follow, see `expected` */
	__u8 answered; /* the client has acknowledged something of a server's */
	__u8 pad[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1000000);
	__type(key, struct tuple);
	__type(value, struct steered);
} flows SEC(".maps");

/* The addresses of a live connection with the initial sequence number that a SYN from there was
 * answered with. Only who got that answer can name it, and until the bridge has spoken each segment
 * acknowledges it: the whole of a request, of which all but the first part may come before the
 * first has been judged. */
struct incarnation {
	struct tuple key;
	__be32 b;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct incarnation);
	__type(value, __u8);
} expected SEC(".maps");

/* Whether a segment is for Python: it has an option of ours, or options that cannot be read. */
ALWAYS int has_ours(struct __sk_buff *skb, const struct segment *s)
{
	const struct shifts none = {};
	struct options options = {};
	__u32 size = s->options;

	if (size == 0)
		return 0;
	if (!load_options(skb, s, &options))
		return 1;
	if (size == 12 && *(__u32 *)options.bytes == bpf_htonl(PLAIN_TIMESTAMPS))
		return 0;
	return !shift_options(&options, size, &none);
}

/* A packet of a connection that a bridge has. Apart, as a program and what it calls share 512 bytes
 * of stack. */
static __noinline int steer_on(struct __sk_buff *skb, const struct segment *s, struct steered *flow)
{
	struct total wire;
	__u64 words;
	struct hop next;
	__u8 tos;

	if (s->flags & SYN || !(s->flags & (ACK | RST)) || s->ttl < 2)
		return NOT_OURS;
	if (s->payload && s->seq - flow->first < flow->handoff_bytes)
		return NOT_OURS;
	if (flow->suspect) {
		struct incarnation other = {
			.key = s->key,
			.b = bpf_htonl(s->ack - 1),
		};

		if (bpf_map_lookup_elem(&expected, &other))
			return NOT_OURS;
	}
	if (has_ours(skb, s))
		return NOT_OURS;
	tos = flow->dscp_bits | (s->tos & ECN_BITS);
	next = way_out(skb, s, IPPROTO_TCP, s->key.src, flow->bridge, tos);
	words = change(s->key.dst, flow->bridge);
	wire = on_wire(skb, s);
	if (!next.interface) {
		count(UNROUTED, &wire);
		skb->mark = MARK;
	}
	if (!write_ip(skb, s, s->key.src, flow->bridge, tos, next.interface != 0) ||
	    bpf_l4_csum_replace(skb, s->tcp_at + offsetof(struct tcphdr, check), 0, folded(words),
				BPF_F_PSEUDO_HDR))
		return TC_ACT_SHOT;
	flow->seen = about_now();
	if (s->flags & ACK && s->ack != flow->b + 1)
		flow->answered = 1;
	flow->packets += wire.packets;
	flow->bytes += wire.bytes;
	count(STEERED, &wire);
	/* what the stack forwards, it counts the hop of */
	return next.interface ? send_on(&next) : NOT_OURS;
}

SEC("tc")
int steer(struct __sk_buff *skb)
{
	struct segment s = {};
	struct steered *flow;

	if (!for_us(skb))
		return NOT_OURS;
	if (seems_udp(skb) || !read_segment(skb, ETH_HLEN, &s))
		return read_datagram(skb, ETH_HLEN, &s) ? steer_datagram(skb, &s) : NOT_OURS;
	flow = bpf_map_lookup_elem(&flows, &s.key);
	return flow ? steer_on(skb, &s, flow) : shake_hands(skb, &s);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
