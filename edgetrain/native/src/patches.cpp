// What a convolution of data sees at each place, so that it becomes a product of rows.
#include <algorithm>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

namespace {

// Few bytes at a time, so eight of them are a word.
void copy_flipped(const std::uint8_t* from, std::size_t count, std::uint8_t flip,
                  std::uint8_t* out) {
  const std::uint64_t flips = flip * std::uint64_t{0x0101010101010101};
  std::size_t at = 0;
  for (; at + sizeof flips <= count; at += sizeof flips) {
    std::uint64_t word;
    std::memcpy(&word, from + at, sizeof word);
    word ^= flips;
    std::memcpy(out + at, &word, sizeof word);
  }
  for (; at < count; ++at) {
    out[at] = static_cast<std::uint8_t>(from[at] ^ flip);
  }
}

}  // namespace

void gather_patches(const PatchSource& from, std::size_t example, std::uint8_t* patches) {
  const ConvShape& shape = from.shape;
  const std::size_t row_bytes = shape.width * shape.channels;
  const std::size_t seen = shape.channels / from.groups;
  const std::size_t run = shape.kernel_width * seen;
  const std::size_t stride = padded(shape.taps() * shape.channels);
  const std::uint8_t* image = from.features + from.indices[example] * shape.height * row_bytes;
  for (std::size_t pixel = 0; pixel < shape.pixels(); ++pixel, patches += stride) {
    const std::size_t top = pixel / shape.out_width * shape.stride;
    const std::size_t left = pixel % shape.out_width * shape.stride;
    // The columns of the kernel that lie on the image.
    const std::size_t begin = shape.pad_left > left ? shape.pad_left - left : 0;
    const std::size_t end = std::min(shape.kernel_width, shape.width + shape.pad_left - left);
    for (std::size_t part = 0; part < from.groups * shape.kernel_height; ++part) {
      std::uint8_t* out = patches + part * run;
      const std::size_t y = top + part % shape.kernel_height - shape.pad_top;
      const bool inside = y < shape.height && begin < end;
      if (!inside || end - begin < shape.kernel_width) {
        std::memset(out, data_zero, run);
      }
      if (inside) {
        const std::uint8_t* row = image + y * row_bytes +
                                  (left + begin - shape.pad_left) * shape.channels +
                                  part / shape.kernel_height * seen;
        // Where all channels are seen, pixels lie side by side.
        const std::size_t copies = from.groups == 1 ? 1 : end - begin;
        for (std::size_t copy = 0; copy < copies; ++copy) {
          copy_flipped(row + copy * shape.channels, (end - begin) / copies * seen, from.flip,
                       out + (begin + copy) * seen);
        }
      }
    }
  }
}

}  // namespace edgetrain
