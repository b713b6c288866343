/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * UDP datagrams of IPv4 (RFC 768), read into the same struct as segments: what decides about them
 * needs less of it.
 */
#pragma once

#include "packet.h"

#include <linux/udp.h>

/* Read the headers that begin at `ip_at`; `tcp_at` is then where UDP's is, `seq` to `flags` are 0.
 * 0 for whatever is not one whole datagram with both ports and the right length, for fragments, and
 * for those with IP options: what is wrong with them is for the program to say. */
ALWAYS int read_datagram(struct __sk_buff *skb, __u32 ip_at, struct segment *s)
{
	struct iphdr ip;
	struct udphdr udp;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ip_at, &ip, sizeof(ip)))
		return 0;
	if (ip.version != 4 || ip.ihl * 4 != sizeof(ip) || ip.protocol != IPPROTO_UDP ||
	    ip.frag_off & bpf_htons(IP_FRAGMENT))
		return 0;
	s->ip_at = ip_at;
	s->tcp_at = ip_at + sizeof(ip);
	s->length = bpf_ntohs(ip.tot_len);
	if (s->length < sizeof(ip) + sizeof(udp) || skb->len - ip_at < s->length ||
	    bpf_skb_load_bytes(skb, s->tcp_at, &udp, sizeof(udp)))
		return 0;
	if (bpf_ntohs(udp.len) != s->length - sizeof(ip) || !udp.source || !udp.dest)
		return 0;
	s->payload = s->length - sizeof(ip) - sizeof(udp);
	s->key.src = ip.saddr;
	s->key.dst = ip.daddr;
	s->key.sport = udp.source;
	s->key.dport = udp.dest;
	s->tos = ip.tos;
	s->ttl = ip.ttl;
	s->protocol = IPPROTO_UDP;
	return 1;
}

/* Mend the UDP checksum by a difference of addresses and ports (see change); 0 where that fails.
 * Zero, which is none, stays, and what comes out as zero becomes its equal, all ones. */
ALWAYS int mend_udp(struct __sk_buff *skb, const struct segment *s, __u64 words)
{
	return !bpf_l4_csum_replace(skb, s->tcp_at + offsetof(struct udphdr, check), 0,
				    folded(words), BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
}
