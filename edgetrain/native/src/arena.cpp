#include "edgetrain/arena.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <new>

namespace edgetrain {

namespace {

std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

Arena::Arena(std::size_t bytes) : base_(nullptr), bytes_(bytes) {
  // A page on either side that nothing may touch: a mistake stops here and harms no one's data.
  const std::size_t guard = page_bytes();
  mapped_bytes_ = 2 * guard + (bytes + guard - 1) / guard * guard;
  void* mapped = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    throw std::bad_alloc();
  }
  base_ = static_cast<std::uint8_t*>(mapped) + guard;
  if (mprotect(base_, mapped_bytes_ - 2 * guard, PROT_READ | PROT_WRITE) != 0) {
    munmap(mapped, mapped_bytes_);
    throw std::bad_alloc();
  }
  // A huge page would make the arena larger than the plan says; failure to advise is harmless.
  madvise(base_, bytes, MADV_NOHUGEPAGE);
  std::memset(base_, 0, bytes);
}

Arena::~Arena() { munmap(base_ - page_bytes(), mapped_bytes_); }

}  // namespace edgetrain
