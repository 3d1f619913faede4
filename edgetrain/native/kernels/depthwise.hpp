// A convolution whose every output sees one channel, its own: 32 channels side by side are 32 small
// convolutions that never meet, so plain loops over the lanes do, in 16 bits where sums fit them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"
#include "panel.hpp"
#include "pooling.hpp"

namespace edgetrain {

template <class Isa>
struct Depthwise {
  static void forward(const ConvWeights& weights, const Input& input, std::size_t examples,
                      std::size_t first, const DepthwiseForwardScratch& scratch, const Pool& pool,
                      std::int32_t* tile) {
    const ConvShape& shape = weights.shape;
    for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
      expand_weights(weights, tap, first, scratch.weights + tap * lanes);
    }
    std::memset(scratch.image, 0, shape.image_height() * shape.image_width() * lanes);
    for (std::size_t example = 0; example < examples; ++example) {
      std::int32_t* sums =
          pool.present() ? scratch.unpooled : tile + example * shape.pixels() * lanes;
      expand_image(shape, input, example, first, scratch.image);
      // Signs times bytes: 225 taps leave room in 16 bits.
      correlate<std::int16_t>({scratch.image, shape.image_width(), shape.stride}, shape,
                              scratch.weights, shape.out_height, shape.out_width, sums);
      if (pool.present()) {
        Pooling<Isa>::run(shape, pool, example, sums, tile + example * pool.pixels() * lanes);
      }
    }
  }

  static void backward(const ConvWeights& weights, const Input& input, const ConvGradient& gradient,
                       std::size_t examples, std::size_t first,
                       const DepthwiseBackwardScratch& scratch, std::int32_t* input_gradient,
                       const UpdateStep* step) {
    const ConvShape& shape = weights.shape;
    const std::size_t taps = shape.taps();
    for (std::size_t tap = 0; tap < taps; ++tap) {
      expand_weights(weights, tap, first, scratch.weights + (taps - 1 - tap) * lanes);
    }
    std::memset(scratch.image, 0, shape.image_height() * shape.image_width() * lanes);
    std::memset(scratch.codes, 0, shape.code_height() * shape.code_width() * lanes);
    std::fill_n(scratch.gradient, taps * lanes, 0);
    for (std::size_t example = 0; example < examples; ++example) {
      if (step != nullptr) {
        expand_image(shape, input, example, first, scratch.image);
      }
      // The first draw last: its codes are those that stay.
      for (std::size_t draw = step != nullptr ? gradient.draws : 1; draw-- > 0;) {
        place_codes(shape, gradient.of_draw(draw), example, first, scratch.codes);
        if (step != nullptr) {
          multiply_weights(shape, scratch);
        }
      }
      if (input_gradient != nullptr) {
        const Image codes = {scratch.codes, shape.code_width(), 1};
        std::int32_t* out = input_gradient + example * shape.height * shape.width * lanes;
        if (weights.mode == WeightMode::bnn) {
          correlate<std::int16_t>(codes, shape, scratch.weights, shape.height, shape.width, out);
        } else {
          correlate<std::int32_t>(codes, shape, scratch.weights, shape.height, shape.width, out);
        }
      }
    }
    for (std::size_t tap = 0; tap < taps && step != nullptr; ++tap) {
      if (weights.latent == nullptr) {
        update_word(weights.held, tap, first, scratch.gradient + tap * lanes, *step);
        continue;
      }
      const std::size_t at = tap * shape.channels + first;
      Isa::update_latents(weights.latent + at, scratch.gradient + tap * lanes, step->key,
                          static_cast<std::uint32_t>(at / 4), step->latent_step);
    }
  }

 private:
  // [pixels][32 channels], over which a kernel takes steps of `stride` pixels.
  struct Image {
    const std::int8_t* bytes;
    std::size_t width;
    std::size_t stride;

    const std::int8_t* at(std::size_t row, std::size_t column) const {
      return bytes + (row * width + column) * lanes;
    }
  };

  static void expand_weights(const ConvWeights& weights, std::size_t tap, std::size_t first,
                             std::int8_t* values) {
    if (weights.latent == nullptr) {
      Panel<Isa>::unpack(sign_word(weights.held, tap, first), values);
      return;
    }
    std::memcpy(values, weights.latent + tap * weights.shape.channels + first, lanes);
    if (weights.mode == WeightMode::bnn) {
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        values[lane] = static_cast<std::int8_t>((values[lane] >> 7) | 1);
      }
    }
  }

  // The signs of one example as 1 and -1; what lies around them stays zero.
  [[gnu::noinline]] static void expand_image(const ConvShape& shape, const Input& input,
                                             std::size_t example, std::size_t first,
                                             std::int8_t* image) {
    const std::size_t words = shape.channels / lanes;
    for (std::size_t y = 0; y < shape.reached_rows(); ++y) {
      const std::uint32_t* signs =
          input.signs + (example * shape.height + y) * shape.width * words + first / lanes;
      std::int8_t* row =
          image + ((shape.pad_top + y) * shape.image_width() + shape.pad_left) * lanes;
      for (std::size_t x = 0; x < shape.reached_columns(); ++x) {
        Panel<Isa>::unpack(signs[x * words], row + x * lanes);
      }
    }
  }

  // The codes of one example, unpooled, `stride` apart inside a border: the image over which the
  // mirrored kernel passes. What no code reaches stays zero.
  static void place_codes(const ConvShape& shape, const ConvGradient& gradient, std::size_t example,
                          std::size_t first, std::int8_t* image) {
    const Pool& pool = gradient.pool;
    const bool pooled = pool.present();
    const std::size_t height = pooled ? pool.height : shape.out_height;
    const std::size_t width = pooled ? pool.width : shape.out_width;
    const std::size_t window_height = pooled ? pool.window_height : 1;
    const std::size_t window_width = pooled ? pool.window_width : 1;
    for (std::size_t pixel = 0; pixel < height * width; ++pixel) {
      const std::size_t row = example * height * width + pixel;
      std::uint8_t bytes[lanes];
      Isa::decode(gradient.codes + (row * shape.outputs + first) / 2, bytes);
      for (std::size_t at = 0; at < window_height * window_width; ++at) {
        const std::uint32_t held =
            pooled ? pool.holders(row * pool.words + first / lanes, at) : ~std::uint32_t{0};
        const std::size_t y = pixel / width * window_height + at / window_width;
        const std::size_t x = pixel % width * window_width + at % window_width;
        std::int8_t* to = image + code_place(shape, y, x);
        for (std::uint32_t lane = 0; lane < lanes; ++lane) {
          const std::int32_t code = bytes[lane] - code_zero;
          to[lane] = static_cast<std::int8_t>(((held >> lane) & 1U) != 0 ? code : 0);
        }
      }
    }
  }

  // Where the code of an output lies in its image.
  static std::size_t code_place(const ConvShape& shape, std::size_t y, std::size_t x) {
    const std::size_t row = shape.kernel_height - 1 - shape.pad_top + y * shape.stride;
    const std::size_t column = shape.kernel_width - 1 - shape.pad_left + x * shape.stride;
    return (row * shape.code_width() + column) * lanes;
  }

  // out[pixels][32] = the kernel at each place of the image.
  template <class Sum>
  static void correlate(const Image& image, const ConvShape& kernel, const std::int8_t* weights,
                        std::size_t height, std::size_t width, std::int32_t* out) {
    for (std::size_t y = 0; y < height; ++y) {
      for (std::size_t x = 0; x < width; ++x, out += lanes) {
        Sum sums[lanes] = {};
        const std::int8_t* weight = weights;
        for (std::size_t tap_row = 0; tap_row < kernel.kernel_height; ++tap_row) {
          const std::int8_t* seen = image.at(y * image.stride + tap_row, x * image.stride);
          for (std::size_t tap = 0; tap < kernel.kernel_width; ++tap) {
            for (std::size_t lane = 0; lane < lanes; ++lane) {
              sums[lane] = static_cast<Sum>(sums[lane] + seen[lane] * weight[lane]);
            }
            seen += lanes;
            weight += lanes;
          }
        }
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          out[lane] = sums[lane];
        }
      }
    }
  }

  // gradient[taps][32] += codes times what each tap saw of one example. Blocks of pixels are so
  // small that their sums fit 16 bits.
  static void multiply_weights(const ConvShape& shape, const DepthwiseBackwardScratch& scratch) {
    constexpr std::size_t most = INT16_MAX / code_zero;
    const std::size_t block_columns = std::min(shape.out_width, most);
    const std::size_t block_rows = most / block_columns;
    const Image image = {scratch.image, shape.image_width(), shape.stride};
    for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
      std::int32_t* gradient = scratch.gradient + tap * lanes;
      for (std::size_t row = 0; row < shape.out_height; row += block_rows) {
        const std::size_t rows = std::min(block_rows, shape.out_height - row);
        for (std::size_t column = 0; column < shape.out_width; column += block_columns) {
          const std::size_t columns = std::min(block_columns, shape.out_width - column);
          const std::int8_t* seen = image.at(row * shape.stride + tap / shape.kernel_width,
                                             column * shape.stride + tap % shape.kernel_width);
          const std::int8_t* codes = scratch.codes + code_place(shape, row, column);
          add_block(shape, rows, columns, seen, codes, gradient);
        }
      }
    }
  }

  static void add_block(const ConvShape& shape, std::size_t rows, std::size_t columns,
                        const std::int8_t* seen, const std::int8_t* codes, std::int32_t* gradient) {
    const std::size_t step = shape.stride * lanes;
    std::int16_t sums[lanes] = {};
    for (std::size_t row = 0; row < rows; ++row) {
      const std::int8_t* x = seen + row * step * shape.image_width();
      const std::int8_t* code = codes + row * step * shape.code_width();
      for (std::size_t column = 0; column < columns; ++column, x += step, code += step) {
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          sums[lane] = static_cast<std::int16_t>(sums[lane] + x[lane] * code[lane]);
        }
      }
    }
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      gradient[lane] += sums[lane];
    }
  }
};

}  // namespace edgetrain
