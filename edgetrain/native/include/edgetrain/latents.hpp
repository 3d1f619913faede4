// How a layer whose weights are signs holds them, where not in int8 latents, and how each way is
// trained. Code compiled for no particular instruction set, a word of 32 weights at a time: what is
// computed here is the same everywhere.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "edgetrain/random.hpp"

namespace edgetrain {

// int8    latents of 8 bits, which the kernels read and move themselves
// signs   packed signs that nothing updates
// int4    latents of 4 bits, two in a byte, moved like those of 8
// bop     packed signs, and a moving average of the gradient's sign that flips them
// adam16  latents and the two moments of Adam, each a half float
enum class Holding : std::int64_t { int8 = 0, signs = 1, int4 = 2, bop = 3, adam16 = 4 };

// Rows of `columns` weights: a row an output, or an output and a tap of a convolution over signs.
struct Latents {
  Holding holding;
  std::size_t columns;
  // Inputs of an output.
  std::size_t fan_in;
  void* state;
  void* moment1;
  void* moment2;
};

// A stretch of examples, outputs or columns.
struct Range {
  std::size_t begin;
  std::size_t count;
};

struct UpdateStep {
  Key key;
  // Sizes of the step in 1/256 of a level.
  std::uint32_t latent_step;
  std::uint32_t scale_step;
  // Of latents held otherwise: the step of int4 in 1/256 of a level, the rate of bop's average in
  // 1/65536, and the level of the average beyond which a sign flips.
  std::uint32_t held_step;
  std::int32_t threshold;
  // Adam, with the corrections of its moments.
  float rate;
  float correction1;
  float correction2;
};

// scale -= the sign of its gradient * step, the fraction of the step rounded at random.
static inline void update_scale(std::uint8_t& scale, std::int64_t gradient, std::uint32_t index,
                                const UpdateStep& step) {
  const auto size =
      static_cast<std::int32_t>((step.scale_step + random_byte(step.key, index)) >> 8);
  const std::int32_t moved = scale - ((gradient > 0) - (gradient < 0)) * size;
  scale = static_cast<std::uint8_t>(std::clamp(moved, 0, 255));
}

// Bytes of so many rows of the state and of each moment.
std::size_t state_bytes(Holding holding, std::size_t rows, std::size_t columns);
std::size_t moment1_bytes(Holding holding, std::size_t rows, std::size_t columns);
std::size_t moment2_bytes(Holding holding, std::size_t rows, std::size_t columns);

// Draws the state, latents by the first key and signs by the second, and clears the moments.
void initialise(const Latents& latents, std::size_t rows, Key levels, Key signs);

// The signs of 32 weights of a row from column `first`; zero past the last column.
std::uint32_t sign_word(const Latents& latents, std::size_t row, std::size_t first);

// Moves the same weights against their gradient[32].
void update_word(const Latents& latents, std::size_t row, std::size_t first,
                 const std::int32_t* gradient, const UpdateStep& step);

// Moves `columns` weights of a row, of latents of 8 bits too, against their gradient[count].
void update_columns(const Latents& latents, std::size_t row, Range columns,
                    const std::int32_t* gradient, const UpdateStep& step);

}  // namespace edgetrain
