// Both gradients of a convolution by table lookup, where weights or inputs are signs: five codes
// have 32 sums, whichever their signs, and a table of them serves every product that they enter.
// Indices are the signs themselves, regrouped.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "conv_codes.hpp"
#include "conv_update.hpp"
#include "edgetrain/kernels.hpp"

namespace edgetrain {

template <class Isa>
struct ConvLookup {
  using Codes = ConvCodes<Isa>;
  using Lookup = typename Isa::Lookup;

  // index[taps, last first][indices][32]: outputs are grouped as they stand.
  static void index(const ConvWeights& weights, std::size_t first, std::uint16_t* index) {
    constexpr std::uint32_t places[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    constexpr std::size_t most = groups_of_index * group_codes;
    const ConvShape& shape = weights.shape;
    for (std::size_t tap = shape.taps(); tap-- > 0;) {
      for (std::size_t output = 0; output < shape.outputs; output += most, index += lanes) {
        const std::size_t count = std::min(most, shape.outputs - output);
        std::uint32_t words[most];
        for (std::size_t i = 0; i < count; ++i) {
          words[i] = ConvPanels<Isa>::signs(weights, output + i, tap, first);
        }
        Lookup::gather_bits(words, 1, places, count, index);
      }
    }
  }

  static void input(const ConvWeights& weights, const ConvGradient& gradient, std::size_t example,
                    const std::uint16_t* index, const LookupInputScratch& scratch,
                    std::int32_t* input_gradient, std::size_t tile_stride) {
    const ConvShape& shape = weights.shape;
    const std::size_t tiles = tiles_of(shape.channels);
    const std::size_t stride = code_stride(shape.outputs);
    Codes::decode(shape, gradient, example, stride, scratch.code_rows);
    for (std::size_t tile = 0; tile < tiles; ++tile) {
      std::memset(input_gradient + tile * tile_stride, 0,
                  shape.height * shape.width * lanes * sizeof(std::int32_t));
    }
    const std::size_t groups = groups_of(shape.outputs);
    std::memset(scratch.tables, 0, shape.code_width() * groups * lanes * sizeof(std::int16_t));
    const std::size_t top = shape.kernel_height - 1 - shape.pad_top;
    for (std::size_t row = 0; row < shape.out_height; ++row) {
      tabulate_row(shape, scratch.code_rows + row * shape.out_width * stride, scratch.tables);
      add_row(shape, row + top, index, scratch.tables, input_gradient, tile_stride);
    }
  }

  static void weights(const ConvWeights& weights, const Input& input, const ConvGradient& gradient,
                      std::size_t examples, std::size_t first, const LookupWeightScratch& scratch,
                      const UpdateStep& step) {
    const ConvShape& shape = weights.shape;
    const std::size_t tiles = tiles_of(shape.channels);
    const std::size_t plane = shape.taps() * lanes * lanes;
    std::memset(scratch.gradient, 0, tiles * plane * sizeof(std::int32_t));
    const Batch batch(examples);
    const std::size_t strip = std::min(most_lookups / batch.groups, shape.out_width);
    std::size_t indexed = 0;
    for (std::size_t row = 0; row < shape.out_height; ++row) {
      // Rows of the image up to the last that the kernel reaches, the oldest overwritten.
      const std::size_t reached = row * shape.stride + shape.kernel_height - shape.pad_top;
      for (; indexed < std::min(reached, shape.height); ++indexed) {
        index_row(shape, input, batch, indexed, scratch.index);
      }
      for (std::size_t column = 0; column < shape.out_width; column += strip) {
        const Strip part = {row, column, std::min(strip, shape.out_width - column)};
        gather_codes(shape, gradient, batch, first / lanes, part, scratch.columns);
        multiply_strip(shape, batch, part, scratch);
      }
    }
    const std::size_t count = std::min(lanes, shape.outputs - first);
    for (std::size_t tile = 0; tile < tiles; ++tile) {
      ConvUpdate<Isa>::run(weights, {first, count}, tile * lanes, scratch.gradient + tile * plane,
                           step);
    }
  }

 private:
  // Group g has examples 4 g to 4 g + 3 and, fifth, example 4 groups + g: quads of examples are
  // what can be interleaved cheaply.
  struct Batch {
    explicit Batch(std::size_t count)
        : examples(count), groups(groups_of(count)), quads(padded(groups * group_codes, 4) / 4) {}

    std::size_t examples;
    std::size_t groups;
    std::size_t quads;

    std::uint32_t example(std::size_t group, std::size_t bit) const {
      const std::size_t place = bit < 4 ? 4 * group + bit : 4 * groups + group;
      return place < examples ? static_cast<std::uint32_t>(place) : no_place;
    }
  };

  // Pixels of one row that are multiplied together.
  struct Strip {
    std::size_t row;
    std::size_t column;
    std::size_t count;
  };

  // tables[code width][groups][32] of one row of codes; the border stays zero.
  static void tabulate_row(const ConvShape& shape, const std::uint8_t* codes,
                           std::int16_t* tables) {
    const std::size_t groups = groups_of(shape.outputs);
    const std::size_t left = shape.kernel_width - 1 - shape.pad_left;
    std::int16_t* table = tables + left * groups * lanes;
    for (std::size_t column = 0; column < shape.out_width; ++column) {
      for (std::size_t group = 0; group < groups; ++group, table += lanes) {
        const std::uint8_t* five = codes + group * group_codes;
        Lookup::sum_table(five, five + 4, table);
      }
      codes += code_stride(shape.outputs);
    }
  }

  // What one row of codes adds to the gradients of the rows that its taps reach.
  static void add_row(const ConvShape& shape, std::size_t code_row, const std::uint16_t* index,
                      const std::int16_t* tables, std::int32_t* out, std::size_t tile_stride) {
    constexpr std::size_t columns = 8;
    const std::size_t groups = groups_of(shape.outputs);
    const std::size_t tap_stride = indices_of(groups) * lanes;
    // As many groups as three taps may add in 16 bits, and whole indices.
    constexpr std::size_t chunk = most_lookups / 3 / groups_of_index * groups_of_index;
    for (std::size_t column = 0; column < shape.width; column += columns) {
      const std::size_t count = std::min(columns, shape.width - column);
      for (std::size_t group = 0; group < groups; group += chunk) {
        for (std::size_t tap_row = 0; tap_row < shape.kernel_height; ++tap_row) {
          const std::size_t y = code_row - tap_row;
          if (y >= shape.height) {
            continue;
          }
          for (std::size_t tile = 0; tile < tiles_of(shape.channels); ++tile) {
            const std::size_t tap = (tile * shape.kernel_height + tap_row) * shape.kernel_width;
            const std::uint16_t* signs = index + tap * tap_stride + group / groups_of_index * lanes;
            const LookupTables part = {tables + (column * groups + group) * lanes, groups * lanes,
                                       std::min(chunk, groups - group)};
            add_taps(shape.kernel_width, part, count, signs, tap_stride,
                     out + tile * tile_stride + (y * shape.width + column) * lanes);
          }
        }
      }
    }
  }

  // Three taps at a time, or two: every kernel is at least two wide.
  static void add_taps(std::size_t width, const LookupTables& tables, std::size_t count,
                       const std::uint16_t* index, std::size_t tap_stride, std::int32_t* out) {
    for (std::size_t tap = 0; tap < width;) {
      const std::size_t left = width - tap;
      const std::size_t taps = left == 4 || left == 2 ? 2 : 3;
      Lookup::lookup_pixels({tables.data + tap * tables.stride, tables.stride, tables.groups},
                            count, index + tap * tap_stride, tap_stride, taps, out);
      tap += taps;
    }
  }

  // index[row modulo the kernel's height][width][tiles][indices][32]: the signs of one row.
  static void index_row(const ConvShape& shape, const Input& input, const Batch& batch,
                        std::size_t row, std::uint16_t* index) {
    const std::size_t words = tiles_of(shape.channels);
    const std::size_t pixel = tiles_of(shape.all_channels);
    const std::size_t stride = shape.height * shape.width * pixel;
    const std::size_t indices = indices_of(batch.groups);
    const std::uint32_t* signs = input.signs + row * shape.width * pixel;
    std::uint16_t* out = index + row % shape.kernel_height * shape.width * words * indices * lanes;
    for (std::size_t number = 0; number < indices; ++number) {
      constexpr std::size_t most = groups_of_index * group_codes;
      std::uint32_t places[most];
      for (std::size_t i = 0; i < most; ++i) {
        const std::size_t group = number * groups_of_index + i / group_codes;
        places[i] = group < batch.groups ? batch.example(group, i % group_codes) : no_place;
      }
      for (std::size_t word = 0; word < shape.width * words; ++word) {
        Lookup::gather_bits(signs + word / words * pixel + word % words, stride, places, most,
                            out + (word * indices + number) * lanes);
      }
    }
  }

  // columns[pixels][quads][32 outputs][4 examples], zero past the last example.
  static void gather_codes(const ConvShape& shape, const ConvGradient& gradient, const Batch& batch,
                           std::size_t word, const Strip& strip, std::uint8_t* columns) {
    for (std::size_t column = 0; column < strip.count; ++column) {
      for (std::size_t quad = 0; quad < batch.quads; ++quad, columns += 4 * lanes) {
        std::uint8_t rows[4][lanes];
        for (std::size_t i = 0; i < 4; ++i) {
          const std::size_t example = 4 * quad + i;
          if (example < batch.examples) {
            Codes::decode_pixel(shape, gradient, example, {strip.row, strip.column + column}, word,
                                rows[i]);
          } else {
            std::memset(rows[i], code_zero, lanes);
          }
        }
        Isa::template interleave<ByteForm::plain>(rows, lanes,
                                                  reinterpret_cast<std::int8_t*>(columns));
      }
    }
  }

  static void multiply_strip(const ConvShape& shape, const Batch& batch, const Strip& strip,
                             const LookupWeightScratch& scratch) {
    const std::size_t stride = strip.count * batch.groups * lanes;
    for (std::size_t output = 0; output < lanes; output += 4) {
      for (std::size_t i = 0; i < 4; ++i) {
        tabulate_output(batch, strip.count, scratch.columns + (output + i) * 4,
                        scratch.tables + i * stride);
      }
      for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
        add_tap(shape, batch, strip, tap, stride, scratch,
                scratch.gradient + (tap * lanes + output) * lanes);
      }
    }
  }

  // tables[pixels][groups][32] of one output.
  static void tabulate_output(const Batch& batch, std::size_t pixels, const std::uint8_t* columns,
                              std::int16_t* tables) {
    for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
      for (std::size_t group = 0; group < batch.groups; ++group, tables += lanes) {
        const std::size_t fifth = 4 * batch.groups + group;
        Lookup::sum_table(columns + group * 4 * lanes, columns + fifth / 4 * 4 * lanes + fifth % 4,
                          tables);
      }
      columns += batch.quads * 4 * lanes;
    }
  }

  // Of the strip's pixels, those whose tap lies on the image.
  static void add_tap(const ConvShape& shape, const Batch& batch, const Strip& strip,
                      std::size_t tap, std::size_t stride, const LookupWeightScratch& scratch,
                      std::int32_t* out) {
    const std::size_t y = strip.row * shape.stride + tap / shape.kernel_width - shape.pad_top;
    if (y >= shape.height) {
      return;
    }
    const std::size_t offset = tap % shape.kernel_width;
    const auto inside = [&](std::size_t pixel) {
      return (strip.column + pixel) * shape.stride + offset - shape.pad_left < shape.width;
    };
    std::size_t begin = 0;
    while (begin < strip.count && !inside(begin)) {
      ++begin;
    }
    std::size_t end = begin;
    while (end < strip.count && inside(end)) {
      ++end;
    }
    if (begin == end) {
      return;
    }
    const std::size_t tiles = tiles_of(shape.channels);
    const std::size_t indices = indices_of(batch.groups) * lanes;
    const std::size_t x = (strip.column + begin) * shape.stride + offset - shape.pad_left;
    const std::uint16_t* index =
        scratch.index + (y % shape.kernel_height * shape.width + x) * tiles * indices;
    Lookup::lookup_outputs({scratch.tables + begin * batch.groups * lanes, stride, batch.groups},
                           end - begin, index, shape.stride * tiles * indices, tiles, indices, out,
                           shape.taps() * lanes * lanes);
  }
};

}  // namespace edgetrain
