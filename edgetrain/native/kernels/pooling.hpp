// Sums over the windows of a tile of 32 channels, or their maxima and which element of its window
// each was.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

template <class Isa>
struct Pooling {
  // rows[pooled pixels of one example][32] of sums[pixels][32]. Not inlined: two kernels end so.
  [[gnu::noinline]] static void run(const ConvShape& shape, const Pool& pool, std::size_t example,
                                    const std::int32_t* sums, std::int32_t* rows) {
    for (std::size_t pixel = 0; pixel < pool.pixels(); ++pixel) {
      const std::size_t top = pixel / pool.width * pool.window_height;
      const std::size_t left = pixel % pool.width * pool.window_width;
      const std::int32_t* corner = sums + (top * shape.out_width + left) * lanes;
      if (pool.average) {
        add_window(shape, pool, corner, rows + pixel * lanes);
      } else {
        const std::size_t word = (example * pool.pixels() + pixel) * pool.words;
        take_maximum(shape, pool, corner, word, rows + pixel * lanes);
      }
    }
  }

 private:
  static const std::int32_t* element(const ConvShape& shape, const Pool& pool,
                                     const std::int32_t* corner, std::size_t at) {
    const std::size_t row = at / pool.window_width;
    return corner + (row * shape.out_width + at % pool.window_width) * lanes;
  }

  static void add_window(const ConvShape& shape, const Pool& pool, const std::int32_t* corner,
                         std::int32_t* out) {
    std::int32_t total[lanes] = {};
    for (std::size_t at = 0; at < pool.window_height * pool.window_width; ++at) {
      const std::int32_t* value = element(shape, pool, corner, at);
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        total[lane] += value[lane];
      }
    }
    std::memcpy(out, total, sizeof total);
  }

  static void take_maximum(const ConvShape& shape, const Pool& pool, const std::int32_t* corner,
                           std::size_t word, std::int32_t* best) {
    std::memcpy(best, corner, lanes * sizeof *best);
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    for (std::size_t at = 1; at < pool.window_height * pool.window_width; ++at) {
      const std::int32_t* value = element(shape, pool, corner, at);
      const std::uint32_t larger = ~Isa::at_least(best, value);
      low = (at & 1) != 0 ? low | larger : low & ~larger;
      high = (at & 2) != 0 ? high | larger : high & ~larger;
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        best[lane] = std::max(best[lane], value[lane]);
      }
    }
    if (pool.low != nullptr) {
      pool.low[word] = low;
      pool.high[word] = high;
    }
  }
};

}  // namespace edgetrain
