// System calls that the test support needs and glibc shows only to GNU sources, or not at all.
//
// Header only: no logic lives here.
#ifndef CULVERT_CTESTSUPPORT_H
#define CULVERT_CTESTSUPPORT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/// pipe2(2) with O_CLOEXEC.
static inline int culvert_test_pipe(int ends[2]) {
  return (int)syscall(SYS_pipe2, ends, O_CLOEXEC);
}

/// unshare(2) with CLONE_NEWNET: the calling thread gets a new network namespace.
static inline int culvert_test_unshare_network(void) {
  return (int)syscall(SYS_unshare, CLONE_NEWNET);
}

/// setns(2) with CLONE_NEWNET: the calling thread enters a network namespace.
static inline int culvert_test_enter_network(int descriptor) {
  return (int)syscall(SYS_setns, descriptor, CLONE_NEWNET);
}

/// accept4(2) with SOCK_CLOEXEC.
static inline int culvert_test_accept(int listener) {
  return (int)syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC);
}

/// io_uring_setup(2) for one entry; the parameters are of no interest.
static inline int culvert_test_make_ring(void) {
  char parameters[120] = {0};
  return (int)syscall(SYS_io_uring_setup, 1, parameters);
}

/// memmem(3).
static inline const void *culvert_test_find(const void *bytes, size_t count,
                                            const void *wanted, size_t wanted_count) {
  extern void *memmem(const void *, size_t, const void *, size_t);
  return memmem(bytes, count, wanted, wanted_count);
}

/// Has a seccomp filter answer EPERM to io_uring_setup(2), as container profiles do, for the
/// calling thread and everything it starts.
static inline int culvert_test_refuse_io_uring(void) {
  struct sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {sizeof program / sizeof *program, program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
}

#endif
