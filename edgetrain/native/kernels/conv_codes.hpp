// The gradient of a convolution's sums as the products need it: decoded, and as they were
// before pooling.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"
#include "panel.hpp"

namespace edgetrain {

template <class Isa>
struct ConvCodes {
  // rows[pixels][outputs] of bytes, `stride` from one pixel to the next: the codes of one example,
  // zero between the pixels.
  static void decode(const ConvShape& shape, const ConvGradient& gradient, std::size_t example,
                     std::size_t stride, std::uint8_t* rows) {
    const Pool& pool = gradient.pool;
    const std::size_t depth = padded(shape.outputs);
    const std::size_t pixels = pool.present() ? pool.pixels() : shape.pixels();
    const std::size_t pixel_codes = padded(shape.all_outputs) / 2;
    const std::uint8_t* codes = gradient.codes + example * pixels * pixel_codes;
    if (pool.present() || stride > depth) {
      std::memset(rows, code_zero, shape.pixels() * stride);
    }
    for (std::size_t pixel = 0; pixel < pixels; ++pixel, codes += pixel_codes) {
      for (std::size_t word = 0; word < depth / lanes; ++word) {
        const std::uint8_t* word_codes = codes + word * lanes / 2;
        if (!pool.present()) {
          Isa::decode(word_codes, rows + pixel * stride + word * lanes);
          continue;
        }
        std::uint8_t bytes[lanes];
        Isa::decode(word_codes, bytes);
        const std::size_t top = pixel / pool.width * pool.window_height;
        const std::size_t left = pixel % pool.width * pool.window_width;
        unpool(shape, pool, (example * pixels + pixel) * pool.words + word, bytes, stride,
               rows + (top * shape.out_width + left) * stride + word * lanes);
      }
    }
  }

  struct Pixel {
    std::size_t row;
    std::size_t column;
  };

  // bytes[32]: the codes of one word of outputs at a pixel, zero where pooling left one out.
  static void decode_pixel(const ConvShape& shape, const ConvGradient& gradient,
                           std::size_t example, Pixel at, std::size_t word, std::uint8_t* bytes) {
    const Pool& pool = gradient.pool;
    const std::size_t depth = padded(shape.all_outputs);
    if (!pool.present()) {
      const std::size_t row = (example * shape.out_height + at.row) * shape.out_width + at.column;
      Isa::decode(gradient.codes + (row * depth + word * lanes) / 2, bytes);
      return;
    }
    const std::size_t y = at.row / pool.window_height;
    const std::size_t x = at.column / pool.window_width;
    if (y >= pool.height || x >= pool.width) {
      std::memset(bytes, code_zero, lanes);
      return;
    }
    const std::size_t row = (example * pool.height + y) * pool.width + x;
    const std::size_t place =
        at.row % pool.window_height * pool.window_width + at.column % pool.window_width;
    std::uint8_t decoded[lanes];
    Isa::decode(gradient.codes + (row * depth + word * lanes) / 2, decoded);
    Panel<Isa>::select_codes(pool.holders(row * pool.words + word, place), decoded, bytes);
  }

 private:
  static void unpool(const ConvShape& shape, const Pool& pool, std::size_t word,
                     const std::uint8_t* bytes, std::size_t stride, std::uint8_t* corner) {
    for (std::size_t place = 0; place < pool.window_height * pool.window_width; ++place) {
      const std::size_t pixel =
          place / pool.window_width * shape.out_width + place % pool.window_width;
      Panel<Isa>::select_codes(pool.holders(word, place), bytes, corner + pixel * stride);
    }
  }
};

}  // namespace edgetrain
