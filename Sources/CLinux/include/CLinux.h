// Linux system interfaces that Swift's Glibc overlay does not show, and liburing.
//
// Header only: each function below wraps a macro, a variadic call or a constant that the Swift
// importer cannot see. No logic lives here.
#ifndef CULVERT_CLINUX_H
#define CULVERT_CLINUX_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <liburing.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/tls.h>
#include <malloc.h>
#include <net/if.h>
#include <netinet/in.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

static const int culvert_SO_ORIGINAL_DST = SO_ORIGINAL_DST;
static const int culvert_IP6T_SO_ORIGINAL_DST = IP6T_SO_ORIGINAL_DST;
static const int culvert_IP_BIND_ADDRESS_NO_PORT = 24;

static const unsigned culvert_IOSQE_BUFFER_SELECT = 1U << 5;

static inline int culvert_prctl(int option, unsigned long argument) {
  return prctl(option, argument, 0, 0, 0);
}

static inline int culvert_open(const char *path, int flags, mode_t mode) {
  return open(path, flags, mode);
}

// liburing 2.3 declares io_uring_register_restrictions and io_uring_enable_rings, but its shared
// library does not export them.
static inline int culvert_io_uring_register(int ring, unsigned opcode, void *argument,
                                            unsigned count) {
  return (int)syscall(SYS_io_uring_register, ring, opcode, argument, count);
}

static inline int culvert_accept4(int descriptor, struct sockaddr *address, socklen_t *length,
                                  int flags) {
  return (int)syscall(SYS_accept4, descriptor, address, length, flags);
}

// kTLS (Documentation/networking/tls.rst)

static const int culvert_SOL_TLS = 282;

// One message to or from a kTLS socket: its bytes and the record type beside them.
struct culvert_tls_message {
  struct msghdr header;
  struct iovec bytes;
  union {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(unsigned char))];
  } control;
};

static inline void culvert_tls_message_set(struct culvert_tls_message *message, void *bytes,
                                           size_t count) {
  memset(message, 0, sizeof *message);
  message->bytes.iov_base = bytes;
  message->bytes.iov_len = count;
  message->header.msg_iov = &message->bytes;
  message->header.msg_iovlen = 1;
  message->header.msg_control = &message->control;
  message->header.msg_controllen = sizeof message->control;
}

static inline void culvert_tls_message_set_type(struct culvert_tls_message *message,
                                                unsigned char type) {
  struct cmsghdr *header = CMSG_FIRSTHDR(&message->header);
  header->cmsg_level = culvert_SOL_TLS;
  header->cmsg_type = TLS_SET_RECORD_TYPE;
  header->cmsg_len = CMSG_LEN(sizeof type);
  *CMSG_DATA(header) = type;
  message->header.msg_controllen = header->cmsg_len;
}

// The record type that came with a message; 0 if none did.
static inline unsigned char culvert_tls_message_type(struct culvert_tls_message *message) {
  struct cmsghdr *header = CMSG_FIRSTHDR(&message->header);
  if (header == NULL || header->cmsg_level != culvert_SOL_TLS ||
      header->cmsg_type != TLS_GET_RECORD_TYPE) {
    return 0;
  }
  return *CMSG_DATA(header);
}

// bpf(2)

static const int culvert_SO_NETNS_COOKIE = 71;
static const int culvert_TCP_SAVE_SYN = 27;

static const short culvert_sock_ops_op = offsetof(struct bpf_sock_ops, op);
static const short culvert_sock_ops_argument = offsetof(struct bpf_sock_ops, args);
static const short culvert_sock_ops_flags = offsetof(struct bpf_sock_ops, bpf_sock_ops_cb_flags);
static const short culvert_sock_ops_socket = offsetof(struct bpf_sock_ops, sk);
static const short culvert_sock_ops_tcp_flags = offsetof(struct bpf_sock_ops, skb_tcp_flags);
static const short culvert_bpf_sock_mark = offsetof(struct bpf_sock, mark);

// Loads a program of type BPF_PROG_TYPE_SOCK_OPS. With a log of no bytes the verifier keeps none.
static inline int culvert_bpf_load_sock_ops(const void *instructions, unsigned count,
                                            const char *license, char *log, unsigned log_bytes) {
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.prog_type = BPF_PROG_TYPE_SOCK_OPS;
  attributes.expected_attach_type = BPF_CGROUP_SOCK_OPS;
  attributes.insns = (unsigned long)instructions;
  attributes.insn_cnt = count;
  attributes.license = (unsigned long)license;
  attributes.log_level = log_bytes > 0;
  attributes.log_buf = (unsigned long)(log_bytes > 0 ? log : NULL);
  attributes.log_size = log_bytes;
  return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes);
}

static inline int culvert_bpf_link_sock_ops(int program, int cgroup) {
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.link_create.prog_fd = program;
  attributes.link_create.target_fd = cgroup;
  attributes.link_create.attach_type = BPF_CGROUP_SOCK_OPS;
  return (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attributes, sizeof attributes);
}

// fsopen(2), fsconfig(2) with FSCONFIG_CMD_CREATE (6), fsmount(2): Linux 5.2. The numbers, because
// <sys/mount.h> has them from glibc 2.36 on only, and <linux/mount.h> contradicts it.

static inline int culvert_fsopen(const char *type) {
  return (int)syscall(SYS_fsopen, type, 1 /* FSOPEN_CLOEXEC */);
}

static inline int culvert_fsconfig_create(int context) {
  return (int)syscall(SYS_fsconfig, context, 6, NULL, NULL, 0);
}

static inline int culvert_fsmount(int context) {
  return (int)syscall(SYS_fsmount, context, 1 /* FSMOUNT_CLOEXEC */, 0);
}

static inline int culvert_openat(int directory, const char *path, int flags) {
  return openat(directory, path, flags);
}

static inline int culvert_ioctl(int descriptor, unsigned long request, void *argument) {
  return ioctl(descriptor, request, argument);
}

// Processors the calling thread may run on, of the first 8192.
static inline int culvert_available_processors(void) {
  unsigned long mask[128] = {0};
  long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
  int count = 0;
  for (long index = 0; index < bytes / (long)sizeof mask[0]; index++) {
    count += __builtin_popcountl(mask[index]);
  }
  return count;
}

static inline int culvert_setns(int descriptor, int type) {
  return (int)syscall(SYS_setns, descriptor, type);
}

static inline int culvert_unshare(int flags) { return (int)syscall(SYS_unshare, flags); }

static inline int culvert_capset(unsigned effective) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{effective, effective, 0}, {0, 0, 0}};
  return (int)syscall(SYS_capset, &header, data);
}

static inline int culvert_capget(unsigned *effective) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  int result = (int)syscall(SYS_capget, &header, data);
  *effective = data[0].effective;
  return result;
}

#endif
