/// At most one deadline per connection slot: a binary heap that knows where each slot stands, so
/// that moving and removing are exact and nothing stale piles up.
struct DeadlineHeap {
  private var heap: [(deadline: UInt64, slot: UInt32)] = []
  /// Position in the heap by slot; -1 if the slot has no deadline.
  private var positions: [Int32] = []

  /// The earliest deadline (CLOCK_MONOTONIC nanoseconds).
  var first: UInt64? { heap.first?.deadline }

  /// Takes the slot of the earliest deadline that has passed.
  mutating func popExpired(now: UInt64) -> UInt32? {
    guard let first = heap.first, first.deadline <= now else { return nil }
    clear(first.slot)
    return first.slot
  }

  mutating func set(_ slot: UInt32, _ deadline: UInt64) {
    while positions.count <= Int(slot) { positions.append(-1) }
    let position = Int(positions[Int(slot)])
    if position < 0 {
      heap.append((deadline, slot))
      positions[Int(slot)] = Int32(heap.count - 1)
      siftUp(heap.count - 1)
    } else {
      heap[position].deadline = deadline
      siftUp(position)
      siftDown(Int(positions[Int(slot)]))
    }
  }

  mutating func clear(_ slot: UInt32) {
    guard Int(slot) < positions.count, positions[Int(slot)] >= 0 else { return }
    let position = Int(positions[Int(slot)])
    positions[Int(slot)] = -1
    let last = heap.removeLast()
    guard position < heap.count else { return }
    heap[position] = last
    positions[Int(last.slot)] = Int32(position)
    siftUp(position)
    siftDown(Int(positions[Int(last.slot)]))
  }

  private mutating func siftUp(_ start: Int) {
    var child = start
    while child > 0 {
      let parent = (child - 1) / 2
      guard heap[child].deadline < heap[parent].deadline else { return }
      swap(child, parent)
      child = parent
    }
  }

  private mutating func siftDown(_ start: Int) {
    var parent = start
    while true {
      var least = parent
      for child in 2 * parent + 1...2 * parent + 2
      where child < heap.count && heap[child].deadline < heap[least].deadline {
        least = child
      }
      guard least != parent else { return }
      swap(parent, least)
      parent = least
    }
  }

  private mutating func swap(_ left: Int, _ right: Int) {
    heap.swapAt(left, right)
    positions[Int(heap[left].slot)] = Int32(left)
    positions[Int(heap[right].slot)] = Int32(right)
  }
}
