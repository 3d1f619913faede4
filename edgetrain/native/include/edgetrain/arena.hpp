// One private mapping that holds every byte the engine works with.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgetrain {

// The offset of what a plan does without.
constexpr std::size_t absent = static_cast<std::size_t>(-1);

class Arena {
 public:
  // Maps and touches every page at once, so that a lack of memory shows now and not in hour three.
  explicit Arena(std::size_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  std::size_t bytes() const { return bytes_; }

  template <class T>
  T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(base_ + offset);
  }

  // Null for what is absent.
  template <class T>
  T* optional(std::size_t offset) const {
    return offset == absent ? nullptr : at<T>(offset);
  }

 private:
  std::uint8_t* base_;
  std::size_t bytes_;
  std::size_t mapped_bytes_ = 0;
};

}  // namespace edgetrain
