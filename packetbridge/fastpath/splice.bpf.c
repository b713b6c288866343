/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Splicing in the kernel: the translation of packetbridge/core/splice.py for connections that stand
 * and have nothing special about them. Packets from clients come in at tc ingress, those of a
 * server on this host go out at tc egress, those of another host's come in at tc ingress. Whatever
 * is unusual goes up, to netfilter and so to the program, which writes the records.
 */
#include "counters.h"
#include "datagrams.h"
#include "options.h"

enum {
	FROM_SERVER = 255,
	CLIENT_FIN = 1, /* of `fins`; see packetbridge/core/flow.py */
	SERVER_FIN = 2,
	BOTH = CLIENT_FIN | SERVER_FIN,
};

/* Whose packets: addresses and ports, and the DSCP of the balancer's mark or FROM_SERVER. */
struct way_key {
	struct tuple tuple;
	__u8 from;
	__u8 pad[3];
};

/* One direction of a connection: what its packets become. Times are nanoseconds of
 * CLOCK_MONOTONIC; the `_by` are added modulo 2**32. */
struct way {
	__u64 seen; /* the latest packet */
	__u64 packets; /* and bytes of IP: plain sums, as one processor has a direction at a time */
	__u64 bytes;
	__u64 first; /* packet with payload; of server's packets */
	struct tuple to;
	__u32 seq_by;
	__u32 ack_by;
	__u32 value_by; /* timestamps: TSval, */
	__u32 echo_by; /* and TSecr */
	__u32 ack; /* the latest acknowledgment number, as it came */
	__u32 mark; /* of packets to and from a server on this host */
	__u32 fin_end; /* of server's packets: the acknowledgment that will answer the client's FIN */
	__u32 suspect_ack; /* what a handoff of the same addresses acknowledged, */
	__u8 suspect; /* if any came */
	__s8 window_by; /* bits to shift left; right where negative */
	__u8 hop; /* to take off the TTL */
	__u8 onward; /* to be sent on from here: the stack would not, or not so directly */
	__u8 slow; /* Python translates it for now */
	__u8 fin; /* `fin_end` holds */
	__u8 fins; /* of server's packets: the server's FIN came, the client's was acknowledged */
	__u8 client_first; /* of these the client's was first */
	__u32 pad2;
	__u32 c; /* nothing to translation, as `b`: they name the incarnation */
	__u32 b;
	struct way_key peer; /* of the other direction */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2000000);
	__type(key, struct way_key);
	__type(value, struct way);
} ways SEC(".maps");

/* A connection that both sides have ended. */
struct ending {
	struct way_key client; /* of its client's packets */
	__u32 c;
	__u32 b;
	__u64 seen;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 17); /* bytes: some 3000 records, which are read in one go */
} endings SEC(".maps");

enum { UPWARD, DOWNWARD };

/* The way of a segment, by where it comes from (a DSCP, or FROM_SERVER). */
ALWAYS struct way *way_of(const struct segment *s, __u8 from)
{
	struct way_key key = { .tuple = s->key, .from = from };

	return bpf_map_lookup_elem(&ways, &key);
}

/* No wake-up: the program looks at every turn. Not inlined, so that the object's BTF describes what
 * is reported. */
static __noinline long report(struct ending *ending)
{
	return bpf_ringbuf_output(&endings, ending, sizeof(*ending), BPF_RB_NO_WAKEUP);
}

/* A client's FIN, which anyone may have sent in its name, counts once the server has acknowledged
 * exactly that much. */
ALWAYS void note_client_fin(const struct way *way, const struct segment *s)
{
	struct way *down = bpf_map_lookup_elem(&ways, &way->peer);

	if (down && !(down->fins & CLIENT_FIN)) {
		down->fin_end = s->seq + s->payload + 1 + way->seq_by;
		down->fin = 1;
	}
}

/* Note what a server's segment says of ends, also for a program that has ended itself; 0: both sides
 * have, and there was no room to report it, so that it is for Python. */
ALWAYS int note_ends(struct way *way, const struct segment *s)
{
	__u8 before = way->fins;

	if (s->flags & FIN)
		way->fins |= SERVER_FIN;
	if (way->fin && s->flags & ACK && (__s32)(s->ack - way->fin_end) >= 0) {
		way->fin = 0;
		if (s->ack == way->fin_end) /* else bytes beyond it: the FIN was not the client's */
			way->fins |= CLIENT_FIN;
		if (!(before & BOTH) && way->fins & CLIENT_FIN)
			way->client_first = 1;
	}
	if (way->fins != before && (way->fins & BOTH) == BOTH) {
		struct ending ending = {
			.client = way->peer,
			.c = way->c,
			.b = way->b,
			.seen = bpf_ktime_get_ns(),
		};

		return report(&ending) == 0;
	}
	return 1;
}

/* Whether a segment of a way needs nothing but translation. */
ALWAYS int plain(const struct segment *s, const struct way *way)
{
	return (s->flags & (SYN | RST | ACK)) == ACK && !way->slow && s->ttl > way->hop &&
	       !(way->suspect && s->ack == way->suspect_ack);
}

/* Read a segment's options and shift their numbers; 0 where they are for Python. */
ALWAYS int read_options(struct __sk_buff *skb, const struct segment *s, const struct way *way,
			struct options *old, struct options *new)
{
	const struct shifts by = {
		.sack = way->ack_by, .value = way->value_by, .echo = way->echo_by,
	};
	__u32 size = s->options;

	if (size == 0)
		return 1;
	if (!load_options(skb, s, old))
		return 0;
	*new = *old;
	if (size == 12 && *(__u32 *)old->bytes == bpf_htonl(PLAIN_TIMESTAMPS)) {
		shift(new->bytes + 4, by.value);
		shift(new->bytes + 8, by.echo);
		return 1;
	}
	return shift_options(new, size, &by);
}

ALWAYS __u16 shifted(__u16 window, __s8 by)
{
	__u32 scaled = by >= 0 ? (__u32)window << (by & 15) : window >> (-by & 15);

	return scaled > 0xffff ? 0xffff : scaled;
}

/* Write a segment's translation in its place; 0 where that fails midway. */
ALWAYS int translate(struct __sk_buff *skb, const struct segment *s, const struct way *way,
		     struct options *old, struct options *new, __u8 hop)
{
	__u32 check = s->tcp_at + offsetof(struct tcphdr, check), size = s->options;
	struct tcphdr tcp;
	__u64 pseudo, own;
	__be32 seq, ack, ports;
	__be16 window;

	if (bpf_skb_load_bytes(skb, s->tcp_at, &tcp, sizeof(tcp)))
		return 0;
	seq = bpf_htonl(s->seq + way->seq_by);
	ack = bpf_htonl(s->ack + way->ack_by);
	window = bpf_htons(shifted(bpf_ntohs(tcp.window), way->window_by));
	__builtin_memcpy(&ports, &way->to.sport, sizeof(ports));
	pseudo = change(s->key.src, way->to.src) + change(s->key.dst, way->to.dst);
	own = change(*(__be32 *)&tcp, ports) + change(tcp.seq, seq) + change(tcp.ack_seq, ack) +
	      change(tcp.window, window);
	*(__be32 *)&tcp = ports;
	tcp.seq = seq;
	tcp.ack_seq = ack;
	tcp.window = window;
	if (bpf_skb_store_bytes(skb, s->tcp_at, &tcp, offsetof(struct tcphdr, check), 0))
		return 0;
	if (size) {
		__s64 options = bpf_csum_diff((__be32 *)old, MAX_OPTIONS, (__be32 *)new, MAX_OPTIONS, 0);

		own += (__u32)options;
		if (!store_options(skb, s, new))
			return 0;
	}
	return !bpf_l4_csum_replace(skb, check, 0, folded(pseudo), BPF_F_PSEUDO_HDR) &&
	       !bpf_l4_csum_replace(skb, check, 0, folded(own), 0) &&
	       write_ip(skb, s, way->to.src, way->to.dst, s->tos & ECN_BITS, hop);
}

ALWAYS void note(struct way *way, const struct __sk_buff *skb, const struct segment *s, __u32 what)
{
	const struct total wire = on_wire(skb, s);

	way->seen = about_now();
	if (what == DOWNWARD && s->payload && !way->first)
		way->first = bpf_ktime_get_ns();
	way->ack = s->ack;
	way->packets += wire.packets;
	way->bytes += wire.bytes;
	count(what, &wire);
}

/* A program's stack has no room for segments and datagrams that come in: two functions. This is what
 * the first says for the second to be asked. */
enum { NO_SEGMENT = -2 };

/* Segments that come in: of clients, steered here by a balancer, and of servers on other hosts. */
static __noinline int incoming_segment(struct __sk_buff *skb)
{
	struct options old = {}, new = {};
	struct segment s = {};
	struct hop next = {};
	__u32 what = UPWARD;
	struct way *way;
	__u8 hop;

	if (!read_segment(skb, ETH_HLEN, &s))
		return NO_SEGMENT;
	way = way_of(&s, s.tos >> 2);
	if (!way) {
		way = way_of(&s, FROM_SERVER);
		what = DOWNWARD;
		if (way && !way->onward)
			return NOT_OURS; /* what says that it is of this host, and comes from outside */
		if (way && !note_ends(way, &s))
			return NOT_OURS;
	}
	if (!way || !plain(&s, way))
		return NOT_OURS;
	if (!read_options(skb, &s, way, &old, &new)) {
		/* A handoff, it seems, of a new incarnation or the same: Python will tell. Until then
		 * what follows it, and acknowledges the same, is not of the old one. */
		way->suspect_ack = s.ack;
		way->suspect = 1;
		return NOT_OURS;
	}
	hop = way->hop;
	if (way->onward) {
		next = way_out(skb, &s, IPPROTO_TCP, way->to.src, way->to.dst, s.tos & ECN_BITS);
		if (!next.interface || s.ttl < 2)
			return NOT_OURS;
		hop = 1;
	}
	if (what == UPWARD && s.flags & FIN)
		note_client_fin(way, &s);
	if (!translate(skb, &s, way, &old, &new, hop))
		return TC_ACT_SHOT;
	note(way, skb, &s, what);
	if (next.interface)
		return send_on(&next);
	skb->mark = way->mark;
	return NOT_OURS;
}

SEC("tc")
int incoming(struct __sk_buff *skb)
{
	int verdict;

	if (!for_us(skb))
		return NOT_OURS;
	if (seems_udp(skb))
		return incoming_datagram(skb);
	verdict = incoming_segment(skb);
	return verdict == NO_SEGMENT ? incoming_datagram(skb) : verdict;
}

/* Packets that leave: of a server on this host. Those that are for Python were queued before. The
 * mark tells a spliced connection's from those of a direct one, which may have the same addresses
 * and ports once the spliced one is over. */
SEC("tc")
int outgoing(struct __sk_buff *skb)
{
	struct options old = {}, new = {};
	struct segment s = {};
	struct way *way;

	if (seems_udp(skb) || !read_segment(skb, ETH_HLEN, &s))
		return outgoing_datagram(skb);
	way = way_of(&s, FROM_SERVER);
	if (!way || way->onward || skb->mark != way->mark)
		return NOT_OURS;
	if (!read_options(skb, &s, way, &old, &new) || !translate(skb, &s, way, &old, &new, way->hop))
		return TC_ACT_SHOT;
	note(way, skb, &s, DOWNWARD);
	return NOT_OURS;
}

/* Whether a server's packet is for Python: asked by netfilter's OUTPUT, which is before egress. */
SEC("socket")
int unusual(struct __sk_buff *skb)
{
	struct options old = {}, new = {};
	struct segment s = {};
	struct way *way;
	__u8 head[10]; /* of IP, up to the protocol */

	if (!bpf_skb_load_bytes(skb, 0, head, sizeof(head)) && head[9] == IPPROTO_UDP)
		return (head[0] != 0x45 || head[8] <= LOW_TTL || watched()) && unusual_datagram(skb);
	if (!read_segment(skb, 0, &s))
		return 1;
	way = way_of(&s, FROM_SERVER);
	if (!way)
		return 1;
	return !note_ends(way, &s) || !plain(&s, way) || !read_options(skb, &s, way, &old, &new);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
