#include "AllocationCounter.h"

#include <errno.h>
#include <execinfo.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CULVERT_HAS_OTHER_ALLOCATOR 1
#endif
#endif

enum { traces_kept = 8, trace_depth = 24 };

struct culvert_allocation_counter {
  atomic_int is_on;
  atomic_long count;
  atomic_long bytes;
  struct {
    int depth;
    void *places[trace_depth];
  } traces[traces_kept];
};

#ifdef CULVERT_HAS_OTHER_ALLOCATOR

struct culvert_allocation_counter *culvert_allocation_counter_make(void) { return NULL; }
void culvert_allocation_counter_follow(struct culvert_allocation_counter *counter) {}

#else

// What glibc calls its own functions by (malloc(3) of the program comes before glibc's).
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static _Thread_local struct culvert_allocation_counter *followed;
/// backtrace(3) may allocate.
static _Thread_local int is_tracing;

static struct culvert_allocation_counter *counting(void) {
  struct culvert_allocation_counter *counter = followed;
  if (!counter || is_tracing) return NULL;
  return atomic_load_explicit(&counter->is_on, memory_order_acquire) ? counter : NULL;
}

/// Only the thread that follows writes.
static void add_bytes(struct culvert_allocation_counter *counter, void *block, int sign) {
  // Each block has a word of the allocator's own before it.
  long size = block ? (long)(malloc_usable_size(block) + sizeof(size_t)) : 0;
  long bytes = atomic_load_explicit(&counter->bytes, memory_order_relaxed);
  atomic_store_explicit(&counter->bytes, bytes + sign * size, memory_order_release);
}

static void *note(void *block) {
  struct culvert_allocation_counter *counter = counting();
  if (!counter) return block;
  long index = atomic_load_explicit(&counter->count, memory_order_relaxed);
  if (index < traces_kept) {
    is_tracing = 1;
    counter->traces[index].depth = backtrace(counter->traces[index].places, trace_depth);
    is_tracing = 0;
  }
  add_bytes(counter, block, 1);
  atomic_store_explicit(&counter->count, index + 1, memory_order_release);
  return block;
}

void *malloc(size_t size) { return note(__libc_malloc(size)); }

void *calloc(size_t count, size_t size) { return note(__libc_calloc(count, size)); }

void *memalign(size_t alignment, size_t size) { return note(__libc_memalign(alignment, size)); }

void *aligned_alloc(size_t alignment, size_t size) {
  return note(__libc_memalign(alignment, size));
}

void *realloc(void *memory, size_t size) {
  struct culvert_allocation_counter *counter = counting();
  if (counter) add_bytes(counter, memory, -1);
  return note(__libc_realloc(memory, size));
}

void free(void *memory) {
  struct culvert_allocation_counter *counter = counting();
  if (counter) add_bytes(counter, memory, -1);
  __libc_free(memory);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0)
    return EINVAL;
  void *block = note(__libc_memalign(alignment, size));
  if (!block) return ENOMEM;
  *memory = block;
  return 0;
}

struct culvert_allocation_counter *culvert_allocation_counter_make(void) {
  // The first backtrace(3) loads libgcc.
  void *place;
  backtrace(&place, 1);
  return calloc(1, sizeof(struct culvert_allocation_counter));
}

void culvert_allocation_counter_follow(struct culvert_allocation_counter *counter) {
  followed = counter;
}

#endif

void culvert_allocation_counter_free(struct culvert_allocation_counter *counter) {
  free(counter);
}

void culvert_allocation_counter_set(struct culvert_allocation_counter *counter, int is_on) {
  atomic_store_explicit(&counter->is_on, is_on, memory_order_release);
}

long culvert_allocation_counter_count(const struct culvert_allocation_counter *counter) {
  return atomic_load_explicit(&counter->count, memory_order_acquire);
}

long culvert_allocation_counter_bytes(const struct culvert_allocation_counter *counter) {
  return atomic_load_explicit(&counter->bytes, memory_order_acquire);
}

void culvert_allocation_counter_print(const struct culvert_allocation_counter *counter,
                                      int descriptor) {
  long count = culvert_allocation_counter_count(counter);
  for (long index = 0; index < count && index < traces_kept; index++) {
    backtrace_symbols_fd(counter->traces[index].places, counter->traces[index].depth, descriptor);
    (void)!write(descriptor, "\n", 1);
  }
}
