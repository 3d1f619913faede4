// How a plan's words are read: one at a time, each within its bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "edgetrain/program.hpp"

namespace edgetrain {

// Where every tensor and every part of a tile's scratch begins: on a cache line.
constexpr std::size_t alignment = 64;

enum class Opcode : std::int64_t {
  linear = 1,
  batch_norm = 2,
  sign = 3,
  loss = 4,
  convolution = 5,
  max_pool = 6,
  xnor = 7,
  either = 8,
  average_pool = 9,
  global_average_pool = 10,
  add = 11
};

[[noreturn]] inline void refuse(const std::string& what) {
  throw std::invalid_argument("the plan is damaged: " + what);
}

class Reader {
 public:
  Reader(const std::int64_t* words, std::size_t count) : words_(words), count_(count) {}

  std::int64_t word() {
    if (position_ == count_) {
      refuse("it ends early");
    }
    return words_[position_++];
  }

  std::size_t within(std::size_t least, std::size_t most, const char* what) {
    const std::int64_t value = word();
    if (value < 0 || static_cast<std::size_t>(value) < least ||
        static_cast<std::size_t>(value) > most) {
      refuse(std::string(what) + " is " + std::to_string(value));
    }
    return static_cast<std::size_t>(value);
  }

  std::size_t offset_or_absent() {
    const std::int64_t value = word();
    return value == -1 ? absent : static_cast<std::size_t>(value);
  }

  // Whether a record of that kind comes next.
  bool next_is(Opcode opcode) const {
    return position_ < count_ && words_[position_] == static_cast<std::int64_t>(opcode);
  }

  bool finished() const { return position_ == count_; }

 private:
  const std::int64_t* words_;
  std::size_t count_;
  std::size_t position_ = 0;
};

// Sizes and offsets are bounded by the arena's limit, so their sum cannot wrap.
inline void fits(const Program& program, std::size_t offset, std::size_t bytes, const char* what) {
  if (offset % alignment != 0 || offset > program.arena_bytes ||
      bytes > program.arena_bytes - offset) {
    refuse(std::string(what) + " lies outside the arena");
  }
}

// What stands only where a gradient arrives, or where weights train.
inline void fits_if(bool wanted, const Program& program, std::size_t offset, std::size_t bytes,
                    const char* what) {
  if (wanted) {
    fits(program, offset, bytes, what);
  } else if (offset != absent) {
    refuse(std::string(what) + " stands where no gradient does");
  }
}

inline void open_record(Reader& reader, Opcode opcode, std::size_t length) {
  if (reader.word() != static_cast<std::int64_t>(opcode)) {
    refuse("an op stands where another is expected");
  }
  reader.within(length, length, "the length of a record");
}

// Reads the residual shortcut that may follow the sums of a block.
void read_add(Reader& reader, Program& program, Block& block);
// Reads the xnor or or that may follow a sign.
void read_bit_shortcut(Reader& reader, Program& program, Block& block);
// Reads the average over an image that may end a block.
void read_average(Reader& reader, const Program& program, Block& block);

}  // namespace edgetrain
