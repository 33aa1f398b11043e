// libmnl, libnftnl and the netlink families culvert-init speaks.
//
// Header only: each function below wraps a macro the Swift importer cannot see. No logic lives here.
#ifndef CULVERT_CNETFILTER_H
#define CULVERT_CNETFILTER_H

#include <netinet/in.h>

#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/inet_diag.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>

// The importer leaves out an enumerator that <linux/in.h> and glibc both define.
static const unsigned char culvert_IPPROTO_TCP = 6;

#endif
