// How a layer whose weights are signs holds them, where not in int8 latents. Read and drawn a word
// of 32 at a time, in code compiled for no particular instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgetrain/random.hpp"

namespace edgetrain {

// Latents of 8 bits, which the kernels read themselves, or packed signs that nothing updates.
enum class Holding : std::int64_t { int8 = 0, signs = 1 };

// Rows of `columns` weights: a row an output, or an output and a tap of a convolution over signs.
struct Latents {
  Holding holding;
  std::size_t columns;
  // [rows][words of 32 columns].
  std::uint32_t* signs;
};

// Bytes of the state of so many rows.
std::size_t state_bytes(Holding holding, std::size_t rows, std::size_t columns);

// Draws the state; the key is that of fixed signs.
void initialise(const Latents& latents, std::size_t rows, Key signs);

// The signs of 32 weights of a row from column `first`; zero past the last column.
std::uint32_t sign_word(const Latents& latents, std::size_t row, std::size_t first);

}  // namespace edgetrain
