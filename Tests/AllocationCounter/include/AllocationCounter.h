// Counts the memory allocations of chosen threads, for tests.
//
// This target defines malloc(3) and its relatives for the whole program it is linked into. A thread
// that follows no counter only pays for one look at a thread-local pointer.
#ifndef CULVERT_ALLOCATION_COUNTER_H
#define CULVERT_ALLOCATION_COUNTER_H

struct culvert_allocation_counter;

/// A counter that is off. NULL if there is no memory, or if allocations cannot be counted here
/// because a sanitizer has its own allocator.
struct culvert_allocation_counter *culvert_allocation_counter_make(void);

/// No thread may follow it any more.
void culvert_allocation_counter_free(struct culvert_allocation_counter *counter);

/// From now on the counter sees what the calling thread allocates; NULL ends that.
void culvert_allocation_counter_follow(struct culvert_allocation_counter *counter);

/// Whether what is seen is counted; from any thread.
void culvert_allocation_counter_set(struct culvert_allocation_counter *counter, int is_on);

/// Allocations counted so far; from any thread.
long culvert_allocation_counter_count(const struct culvert_allocation_counter *counter);

/// Bytes that the followed thread took less those it gave back, the allocator's own included.
long culvert_allocation_counter_bytes(const struct culvert_allocation_counter *counter);

/// Writes where the first counted allocations were made, as return addresses to be looked up with
/// llvm-symbolizer.
void culvert_allocation_counter_print(const struct culvert_allocation_counter *counter,
                                      int descriptor);

#endif
