// What an instruction set can do at most: its products over operands that stay in the nearest
// cache.
#pragma once

#include <cstddef>
#include <string>

namespace edgetrain {

// Products and their binary equals a second, all threads together.
struct Limits {
  double dot;
  double xnor;
};

// Takes some milliseconds. Throws std::invalid_argument for an unknown instruction set.
Limits measure_limits(const std::string& isa, std::size_t threads);

}  // namespace edgetrain
