#include "edgetrain/arena.hpp"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace edgetrain {

Arena::Arena(std::size_t bytes) : base_(nullptr), bytes_(bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    throw std::bad_alloc();
  }
  // A huge page would make the arena larger than the plan says; failure to advise is harmless.
  madvise(mapped, bytes, MADV_NOHUGEPAGE);
  std::memset(mapped, 0, bytes);
  base_ = static_cast<std::uint8_t*>(mapped);
}

Arena::~Arena() { munmap(base_, bytes_); }

}  // namespace edgetrain
