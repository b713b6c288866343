/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * What both fast paths share: finding a packet's headers, checksums by differences (RFC 1624), and
 * sending a packet on without a trip through the stack.
 *
 * Numbers of a packet are in network byte order until ntoh'd. Checksum differences are one's
 * complement sums of the raw words, in whatever order the machine reads them: that order is the
 * same for all words of a packet (RFC 1071 section 2B).
 */
#pragma once

#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ALWAYS static __always_inline

enum {
	NOT_OURS = TC_ACT_UNSPEC, /* other filters, then the stack */
	ECN_BITS = 3,
	FIN = 1,
	SYN = 2,
	RST = 4,
	ACK = 16,
	MIN_OPTIONS = 4, /* bytes, of TCP, where it has any */
	MAX_OPTIONS = 40,
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_SACK = 5,
	OPTION_TIMESTAMPS = 8,
	OPTION_EXPERIMENT = 253, /* RFC 6994; ours is one of those */
	IP_FRAGMENT = 0x3fff, /* offset, and "more fragments" */
};

/* Addresses and ports as they stand in a packet without IP options from byte 12 on. */
struct tuple {
	__be32 src;
	__be32 dst;
	__be16 sport;
	__be16 dport;
};

/* One TCP segment: where it is, and the fields that every decision needs (host byte order). */
struct segment {
	struct tuple key;
	__u32 ip_at;
	__u32 tcp_at;
	__u32 length; /* of the IP packet */
	__u32 payload; /* bytes */
	__u32 options; /* bytes, of TCP */
	__u32 seq;
	__u32 ack;
	__u8 tos;
	__u8 ttl;
	__u8 flags;
	__u8 protocol;
};

/* Whether a frame looks like UDP in IPv4: a hint, so that it is read as that at once. */
ALWAYS int seems_udp(const struct __sk_buff *skb)
{
	const __u8 *protocol = (void *)(long)skb->data + ETH_HLEN + offsetof(struct iphdr, protocol);

	return (void *)(protocol + 1) <= (void *)(long)skb->data_end && *protocol == IPPROTO_UDP;
}

/* Nanoseconds of CLOCK_MONOTONIC, some milliseconds old: as good for the latest packet's time, and
 * read without a look at the clock itself, which takes as long as half of steering. */
ALWAYS __u64 about_now(void)
{
	return bpf_ktime_get_coarse_ns();
}

/* Note a time of which others may be writing the same: where it hardly differs, that is not worth
 * taking the record from another processor's cache. */
ALWAYS void note_seen(__u64 *seen, __u64 now)
{
	if (now - *seen > 1 << 26) /* 67 ms */
		*seen = now;
}

/* Whether a frame that came in is for this host. Others are seen where an interface is promiscuous
 * (tcpdump, a port of a bridge); the stack would drop them, and we would send them a second time. */
ALWAYS int for_us(const struct __sk_buff *skb)
{
	return skb->pkt_type == PACKET_HOST;
}

/* Read the headers that begin at `ip_at`; 0 for whatever is not one whole TCP segment of IPv4, and
 * for one with IP options: those are the stack's to obey or to refuse (RFC 791 source routes). */
ALWAYS int read_segment(struct __sk_buff *skb, __u32 ip_at, struct segment *s)
{
	struct iphdr ip;
	struct tcphdr tcp;
	__u32 header;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ip_at, &ip, sizeof(ip)))
		return 0;
	if (ip.version != 4 || ip.ihl * 4 != sizeof(ip) || ip.protocol != IPPROTO_TCP ||
	    ip.frag_off & bpf_htons(IP_FRAGMENT))
		return 0;
	s->ip_at = ip_at;
	s->tcp_at = ip_at + sizeof(ip);
	s->length = bpf_ntohs(ip.tot_len);
	if (skb->len - ip_at < s->length || bpf_skb_load_bytes(skb, s->tcp_at, &tcp, sizeof(tcp)))
		return 0;
	header = sizeof(ip) + tcp.doff * 4;
	if (tcp.doff < 5 || header > s->length)
		return 0;
	s->payload = s->length - header;
	s->options = tcp.doff * 4 - sizeof(tcp);
	s->key.src = ip.saddr;
	s->key.dst = ip.daddr;
	s->key.sport = tcp.source;
	s->key.dport = tcp.dest;
	s->seq = bpf_ntohl(tcp.seq);
	s->ack = bpf_ntohl(tcp.ack_seq);
	s->tos = ip.tos;
	s->ttl = ip.ttl;
	s->flags = ((__u8 *)&tcp)[13];
	s->protocol = IPPROTO_TCP;
	return 1;
}

/* How many bytes of options a segment has above the least, where it has any. The verifier of Linux
 * 6.1 follows bounds of one register only, and from below only what is added: so this is to be
 * compared and passed on as it stands. */
ALWAYS __u64 more_options(const struct segment *s)
{
	__u64 more = (__u64)s->options - MIN_OPTIONS;

	asm volatile("" : "+r"(more));
	return more;
}

/* Read a segment's options, of which there are some; 0 where that fails. */
ALWAYS int load_options(struct __sk_buff *skb, const struct segment *s, void *to)
{
	__u64 more = more_options(s);

	return more <= MAX_OPTIONS - MIN_OPTIONS &&
	       !bpf_skb_load_bytes(skb, s->tcp_at + sizeof(struct tcphdr), to, MIN_OPTIONS + more);
}

/* Write them; 0 where that fails. */
ALWAYS int store_options(struct __sk_buff *skb, const struct segment *s, const void *from)
{
	__u64 more = more_options(s);

	return more <= MAX_OPTIONS - MIN_OPTIONS &&
	       !bpf_skb_store_bytes(skb, s->tcp_at + sizeof(struct tcphdr), from,
				    MIN_OPTIONS + more, 0);
}

/* One's complement difference of two 32-bit words of a packet, to be added up. */
ALWAYS __u64 change(__u32 from, __u32 to)
{
	return (__u64)to + (__u32)~from;
}

ALWAYS __u32 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

/* To the 16 bits that a header has. */
ALWAYS __u16 folded_twice(__u64 sum)
{
	sum = folded(sum);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Set addresses and the type-of-service byte, take `hop` off the TTL, and mend the IP checksum. */
ALWAYS int write_ip(struct __sk_buff *skb, const struct segment *s, __be32 src, __be32 dst,
		    __u8 tos, __u8 hop)
{
	struct iphdr ip;
	__u64 sum;

	if (bpf_skb_load_bytes(skb, s->ip_at, &ip, sizeof(ip)))
		return 0;
	sum = change(ip.saddr, src) + change(ip.daddr, dst);
	sum += change(((__u16 *)&ip)[0], 0) + change(((__u16 *)&ip)[4], 0);
	ip.tos = tos;
	ip.ttl -= hop;
	sum += (__u32)((__u16 *)&ip)[0] + ((__u16 *)&ip)[4] + (__u16)~ip.check;
	ip.check = ~folded_twice(sum);
	ip.saddr = src;
	ip.daddr = dst;
	return !bpf_skb_store_bytes(skb, s->ip_at, &ip, sizeof(ip), 0);
}

/* Where a packet goes from here. */
struct hop {
	__u32 interface; /* 0: the stack had better see to it */
	__be32 neighbour; /* of its own link */
};

/* Where a packet to `dst` goes; to the stack where there is no route, a blackhole, a path too narrow
 * for it, or forwarding is switched off. */
ALWAYS struct hop way_out(struct __sk_buff *skb, const struct segment *s, __u8 protocol,
			  __be32 src, __be32 dst, __u8 tos)
{
	struct bpf_fib_lookup to = {
		.family = 2, /* AF_INET */
		.l4_protocol = protocol,
		.ifindex = skb->ingress_ifindex,
		.tos = tos,
		.ipv4_src = src,
		.ipv4_dst = dst,
		.sport = s->key.sport,
		.dport = s->key.dport,
	};
	struct hop next = {};
	long found;

	/* what is one of many segments is measured by the largest of them */
	to.tot_len = skb->gso_size ? s->length - s->payload + skb->gso_size : s->length;
	found = bpf_fib_lookup(skb, &to, sizeof(to), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return next;
	if (to.family == 2) { /* a route may lead by a neighbour of IPv6 (RFC 5549) */
		next.interface = to.ifindex;
		next.neighbour = to.ipv4_dst;
	}
	return next;
}

/* Send a packet there, which spares it a second look for its route. */
ALWAYS int send_on(const struct hop *next)
{
	struct bpf_redir_neigh to = { .nh_family = 2, .ipv4_nh = next->neighbour };

	return bpf_redirect_neigh(next->interface, &to, sizeof(to), 0);
}
