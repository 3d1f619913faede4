// What an instruction set must provide. One table a set, chosen when the engine is built; every
// table gives the same bits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "edgetrain/latents.hpp"
#include "edgetrain/random.hpp"

namespace edgetrain {

// Channels that a kernel takes at a time: one word of packed signs.
constexpr std::size_t lanes = 32;
// Rows of a weight gradient that exist at a time.
constexpr std::size_t gradient_rows = 64;
// Gradient codes are stored as bytes with this value added.
constexpr std::int32_t code_zero = 64;
// 8-bit data are stored as bytes with this value added.
constexpr std::int32_t data_zero = 128;

// The byte of every 4-bit gradient code: a sign and the exponent of a power of two, 0 for none.
inline constexpr std::uint8_t code_bytes[16] = {64, 65, 66, 68, 72, 80, 96, 128,
                                                64, 63, 62, 60, 56, 48, 32, 0};

// What becomes of a byte on its way into a panel: nothing, its sign as 1 or -1, or the subtraction
// of data_zero.
enum class ByteForm { plain, signs, centred };

constexpr std::size_t padded(std::size_t count, std::size_t multiple = lanes) {
  return (count + multiple - 1) / multiple * multiple;
}

constexpr std::size_t tiles_of(std::size_t channels) { return padded(channels) / lanes; }

// Products by table lookup. A table has 32 sums of five codes; an index of 16 bits has the signs
// for three of them; so many sums are sure to fit 16 bits.
constexpr std::size_t group_codes = 5;
constexpr std::size_t groups_of_index = 3;
constexpr std::size_t most_lookups = 102;
// An element of an index that stands for nothing.
constexpr std::uint32_t no_place = ~0U;

constexpr std::size_t groups_of(std::size_t codes) {
  return (codes + group_codes - 1) / group_codes;
}
constexpr std::size_t indices_of(std::size_t groups) {
  return (groups + groups_of_index - 1) / groups_of_index;
}

// Bytes of a pixel's codes, zeros to the end of the last group among them.
constexpr std::size_t code_stride(std::size_t outputs) {
  return padded(outputs) > groups_of(outputs) * group_codes ? padded(outputs)
                                                            : groups_of(outputs) * group_codes;
}
// Quads of examples, for 32 outputs, of as many pixels as fit most_lookups.
constexpr std::size_t lookup_column_bytes = 2 * most_lookups * 4 * lanes;

// Tables of `groups` groups beside one another, the next of their kind `stride` elements away.
struct LookupTables {
  const std::int16_t* data;
  std::size_t stride;
  std::size_t groups;
};

enum class WeightMode : std::int64_t { bnn = 0, fsb = 1, int8 = 2 };

// An fsb weight, a scale of 8 bits with a sign, is 2 * plane 0 + plane 1.
constexpr std::size_t planes_of(WeightMode mode) { return mode == WeightMode::fsb ? 2 : 1; }
constexpr std::int32_t plane_factor(WeightMode mode, std::size_t plane) {
  return mode == WeightMode::fsb && plane == 0 ? 2 : 1;
}

// A weight times a power of two up to 64 is a byte where it is a sign, else 128 * plane 0 +
// plane 1.
constexpr std::int32_t largest_span = 6;
constexpr std::size_t shifted_planes(WeightMode mode) { return mode == WeightMode::bnn ? 1 : 2; }
constexpr std::int32_t shifted_factor(WeightMode mode, std::size_t plane) {
  return mode != WeightMode::bnn && plane == 0 ? 128 : 1;
}
// What the gradient of the input multiplies by: weights, or weights times powers of two.
constexpr std::size_t gradient_planes(WeightMode mode, bool shifted) {
  return shifted ? shifted_planes(mode) : planes_of(mode);
}
constexpr std::int32_t gradient_factor(WeightMode mode, bool shifted, std::size_t plane) {
  return shifted ? shifted_factor(mode, plane) : plane_factor(mode, plane);
}
// values[32] = a plane of 32 weights times 2^shift; planes[..][32] are those of the weights.
void shift_weights(WeightMode mode, std::size_t plane, std::uint32_t shift,
                   const std::int8_t (&planes)[2][lanes], std::int8_t* values);

// The state of a linear layer: int8 latents, uint8 scales and the key of fixed signs, or signs held
// otherwise. What a layer does not have is null.
struct Weights {
  WeightMode mode;
  std::size_t inputs;
  std::size_t outputs;
  std::size_t group;
  std::size_t scales;
  std::int8_t* latent;
  std::uint8_t* scale;
  Key signs;
  Latents held;

  bool trains() const { return held.holding != Holding::signs; }
};

struct PatchSource;

// A layer's input: packed signs of `padded(inputs) / 32` words a row, or bytes of
// `padded(inputs)` a row. Where wide weights meet signs, bytes hold the signs as 0 and 1. Where
// there are neither, patches are gathered one example at a time.
struct Input {
  const std::uint32_t* signs;
  const std::uint8_t* bytes;
  const PatchSource* patches = nullptr;
};

struct ForwardScratch {
  std::int8_t* panel;
  std::int32_t* initial;
};

struct BackwardScratch {
  std::int8_t* input_panel;
  std::int8_t* weight_panel;
  std::int32_t* initial;
  std::int32_t* gradient;
};

// Rows of bytes that a product takes four at a time, each four `quad_stride` from the last.
struct ByteRows {
  const std::uint8_t* data;
  std::size_t row_stride;
  std::size_t quad_stride;

  ByteRows from(std::size_t row) const {
    return {data + row * row_stride, row_stride, quad_stride};
  }
};

// The gradient of a layer's sums as bytes: rows[example][channel] for the product over channels,
// columns[draw][example / 4][channel][example % 4] for that over examples, null where no weight
// trains. The gradient of channel c is in units of 2^shifts[c]; of one where shifts are null.
struct Codes {
  const std::uint8_t* rows;
  const std::uint8_t* columns;
  std::size_t draws;
  std::size_t draw_bytes;
  const std::uint8_t* shifts;
};

// Where the gradient of a layer's input goes, a row of 32 an example; null where none is wanted.
struct GradientTarget {
  std::int32_t* rows;
  std::size_t stride;
};

// A convolution over [height][width][channels]; one whose input are patches has a 1 x 1 kernel. Of
// a bundle of groups, channels and outputs are its own, among those that a pixel has in all.
struct ConvShape {
  std::size_t height;
  std::size_t width;
  std::size_t channels;
  std::size_t outputs;
  std::size_t out_height;
  std::size_t out_width;
  std::size_t kernel_height;
  std::size_t kernel_width;
  std::size_t stride;
  std::size_t pad_top;
  std::size_t pad_left;
  std::size_t all_channels;
  std::size_t all_outputs;

  std::size_t taps() const { return kernel_height * kernel_width; }
  std::size_t pixels() const { return out_height * out_width; }
  // The padded image that the kernel passes over, and that of the gradient codes on the way back.
  std::size_t image_height() const { return (out_height - 1) * stride + kernel_height; }
  std::size_t image_width() const { return (out_width - 1) * stride + kernel_width; }
  // The rows and columns of an example that the kernel reaches: with a stride it may miss the last.
  std::size_t reached_rows() const { return std::min(height, image_height() - pad_top); }
  std::size_t reached_columns() const { return std::min(width, image_width() - pad_left); }
  std::size_t code_height() const { return height + kernel_height - 1; }
  std::size_t code_width() const { return width + kernel_width - 1; }
};

// Data of which a kernel sees patches: rows of a dataset, and those to take. The flip is XORed into
// every byte; outside of an image lie zeros.
struct PatchSource {
  const std::uint8_t* features;
  const std::uint32_t* indices;
  std::uint8_t flip;
  ConvShape shape;
  std::size_t groups;
};
// patches[pixels][padded(taps * channels)] of one example, a group's taps together.
void gather_patches(const PatchSource&, std::size_t example, std::uint8_t* patches);

// Latents [output][tap][channel], scales [output][channel] and the key of fixed signs, or signs
// held otherwise, a row an output and tap. Where each output sees one channel, its own, latents are
// [tap][channel], and a row of signs is a tap's.
struct ConvWeights {
  WeightMode mode;
  ConvShape shape;
  std::int8_t* latent;
  std::uint8_t* scale;
  Key signs;
  Latents held;
  // Of a bundle: the output, of all, that is its first, and its groups. A row of weights is what
  // one group sees; from group to group they are absent.
  std::size_t first_output;
  std::size_t groups;

  bool trains() const { return held.holding != Holding::signs; }
  // An absent weight is none.
  bool all_signs() const { return mode == WeightMode::bnn && groups == 1; }
  std::size_t row(std::size_t output, std::size_t tap) const {
    return (first_output + output) * shape.taps() + tap;
  }
};

// Of a bundle of several groups. values[32] = the weights of one output and tap for the channels
// from `first`, zero where the output sees none.
void expand_grouped(const ConvWeights& weights, std::size_t output, std::size_t tap,
                    std::size_t first, std::size_t plane, std::int8_t* values);
// Moves the weights of `count` outputs for the same channels against gradient[taps][padded
// count][32]. Tiles of one bundle share words of weights: one thread may move them.
void update_grouped(const ConvWeights& weights, Range outputs, std::size_t first,
                    const std::int32_t* gradient, const UpdateStep& step);

// Maxima over windows of the sums, and which element of its window each was: two planes of bits;
// or sums over windows. A window of 0 x 0 pools nothing.
struct Pool {
  std::size_t window_height;
  std::size_t window_width;
  std::size_t height;
  std::size_t width;
  std::size_t words;
  bool average;
  // Null where no gradient comes back.
  std::uint32_t* low;
  std::uint32_t* high;

  bool present() const { return window_height != 0; }
  std::size_t pixels() const { return height * width; }
  Pool from_word(std::size_t word) const {
    Pool part = *this;
    part.low = low == nullptr ? nullptr : low + word;
    part.high = high == nullptr ? nullptr : high + word;
    return part;
  }
  // The lanes of a word whose maximum was element `at` of its window; all, where windows are
  // summed.
  std::uint32_t holders(std::size_t word, std::size_t at) const {
    if (average) {
      return ~std::uint32_t{0};
    }
    return ((at & 1) != 0 ? low[word] : ~low[word]) & ((at & 2) != 0 ? high[word] : ~high[word]);
  }
};

// 4-bit codes of the gradient, a row a pooled pixel, and how to undo the pooling. Draws and shifts
// are as in Codes.
struct ConvGradient {
  const std::uint8_t* codes;
  Pool pool;
  std::size_t draws;
  std::size_t draw_bytes;
  const std::uint8_t* shifts;

  ConvGradient of_draw(std::size_t draw) const {
    ConvGradient drawn = *this;
    drawn.codes += draw * draw_bytes;
    return drawn;
  }
  // An output that begins a word.
  ConvGradient from_output(std::size_t output) const {
    ConvGradient part = *this;
    part.codes += output / 2;
    part.pool = pool.from_word(output / lanes);
    part.shifts = shifts == nullptr ? nullptr : shifts + output;
    return part;
  }
};

struct ConvForwardScratch {
  std::int8_t* panel;
  std::int32_t* tap_sums;
  std::int32_t* initial;
  std::uint8_t* image;
  std::int32_t* unpooled;
};

struct ConvBackwardScratch {
  std::uint8_t* columns;
  std::int8_t* input_panel;
  std::int32_t* gradient;
  std::int32_t* initial;
  std::uint8_t* code_rows;
  // Null where no gradient of the input is wanted.
  std::uint8_t* code_image;
  std::int8_t* weight_panel;
  // Of one example, where they are gathered.
  std::uint8_t* patches;
};

struct LookupWeightScratch {
  std::uint8_t* columns;
  std::int16_t* tables;
  std::uint16_t* index;
  std::int32_t* gradient;
};

struct LookupInputScratch {
  std::uint8_t* code_rows;
  std::int16_t* tables;
};

// Of a depthwise convolution, for 32 channels: weights [tap][32], last tap first on the way back,
// a padded image of the input as 1 and -1, and one of the gradient's codes.
struct DepthwiseForwardScratch {
  std::int8_t* weights;
  std::int8_t* image;
  std::int32_t* unpooled;
};

struct DepthwiseBackwardScratch {
  std::int8_t* weights;
  std::int8_t* image;
  std::int8_t* codes;
  std::int32_t* gradient;
};

// Examples whose pixels are multiplied at a time in the gradient of the weights.
constexpr std::size_t chunk_examples(std::size_t examples, std::size_t pixels) {
  constexpr std::size_t chunk_pixels = 256;
  const std::size_t fitting = chunk_pixels / pixels;
  return fitting < 1 ? 1 : fitting < examples ? fitting : examples;
}

// Exact sums over the rows of a tile of 32 channels: of all, and of those that reach the level, the
// least integer that is not below the mean.
struct TileSums {
  std::int64_t sum[lanes];
  std::int32_t level[lanes];
  std::int64_t above[lanes];
  std::int64_t number[lanes];
};

struct TileThresholds {
  std::int32_t sign[lanes];
  std::int32_t low[lanes];
  std::int32_t high[lanes];
};

// dL/dy = slope * D - (sign ? upper : lower), one of each a channel.
struct GradientLine {
  float* slope;
  float* upper;
  float* lower;
  // First the largest magnitude, then what a magnitude is multiplied by to become one of 0 to 64.
  float* range;
};

// What is known of 32 channels of a gradient D: its sum, that of D times the sign, and, for each of
// the two signs, the least and the largest D; lowest > highest where there was none.
struct GradientSums {
  std::int64_t sum[lanes];
  std::int64_t signed_sum[lanes];
  std::int32_t lowest[2][lanes];
  std::int32_t highest[2][lanes];
};

// Where a tile lies in the codes of the whole gradient, [rows][channels].
struct CodePlace {
  std::size_t first_row;
  std::size_t first;
  std::size_t channels;
};

// One tile of the gradient that arrives at a batch norm.
struct GradientTile {
  // [count][32]: gradients are held tile by tile, so that a pass over one stays in the cache.
  const std::int32_t* gradient;
  const std::uint32_t* signs;
  // Null where every element passes.
  const std::uint32_t* mask;
  std::size_t words;
  std::size_t count;
  // Rows whose sum is sure to fit 32 bits.
  std::size_t safe_rows;
};

// Of a depthwise convolution; forward and backward do what those of a convolution do.
struct DepthwiseKernels {
  void (*forward)(const ConvWeights&, const Input&, std::size_t examples, std::size_t first,
                  const DepthwiseForwardScratch&, const Pool&, std::int32_t* tile);
  void (*backward)(const ConvWeights&, const Input&, const ConvGradient&, std::size_t examples,
                   std::size_t first, const DepthwiseBackwardScratch&, std::int32_t* input_gradient,
                   const UpdateStep*);
};

struct Kernels {
  const char* name;

  // Packed signs to bytes 0 and 1.
  void (*expand_signs)(const std::uint32_t* signs, std::size_t words, std::size_t count,
                       std::uint8_t* bytes);
  // y of 32 outputs from `first`: tile[count][32].
  void (*linear_forward)(const Weights&, const Input&, std::size_t count, std::size_t first,
                         const ForwardScratch&, std::int32_t* tile);
  // For 32 inputs from `first`: the gradient of the input[count][32], if wanted, then the update of
  // the weights.
  void (*linear_backward)(const Weights&, const Input&, const Codes&, std::size_t count,
                          std::size_t first, const BackwardScratch&, const GradientTarget&,
                          const UpdateStep&);

  // The same of a convolution: tile[rows][32] of 32 outputs from `first`, pooled where asked. After
  // the first examples others may follow, with the scratch as it was left.
  void (*conv_forward)(const ConvWeights&, const Input&, Range examples, std::size_t first,
                       const ConvForwardScratch&, const Pool&, std::int32_t* tile);
  // For 32 input channels from `first`: their gradient[rows][32] and the update of their weights,
  // either left out where it is null. The update needs all examples at once; for the gradient alone
  // those after the first may come one by one, with the scratch as it was left.
  void (*conv_backward)(const ConvWeights&, const Input&, const ConvGradient&, Range examples,
                        std::size_t first, const ConvBackwardScratch&, std::int32_t* input_gradient,
                        const UpdateStep*);

  // The same by table lookup, where signs meet codes; null where an instruction set has none.
  // The signs of the weights of 32 input channels from `first`: index[taps][indices][32].
  void (*lookup_index)(const ConvWeights&, std::size_t first, std::uint16_t* index);
  // For one example: its gradient[tiles][pixels][32], the tiles `tile_stride` apart.
  void (*lookup_input)(const ConvWeights&, const ConvGradient&, std::size_t example,
                       const std::uint16_t* index, const LookupInputScratch&,
                       std::int32_t* input_gradient, std::size_t tile_stride);
  // For 32 outputs from `first`: the update of their weights.
  void (*lookup_weights)(const ConvWeights&, const Input&, const ConvGradient&,
                         std::size_t examples, std::size_t first, const LookupWeightScratch&,
                         const UpdateStep&);

  // The same where each output sees one channel, its own.
  DepthwiseKernels depthwise;

  // Add the rows of a tile to their sum; those that reach the level to the rest.
  void (*tile_sum)(const std::int32_t* tile, std::size_t count, TileSums& sums);
  void (*tile_above)(const std::int32_t* tile, std::size_t count, TileSums& sums);
  void (*tile_signs)(const std::int32_t* tile, std::size_t count, const TileThresholds&,
                     std::size_t words, std::uint32_t* signs, std::uint32_t* mask);

  // Adds the rows of a tile to its sums.
  void (*gradient_sums)(const GradientTile&, GradientSums&);
  // LUQ: 4-bit codes of dL/dy.
  void (*gradient_codes)(const GradientTile&, const GradientLine&, Key key, const CodePlace&,
                         std::uint8_t* codes);
  // 4-bit codes of one tile to bytes, by example and by channel.
  void (*decode_codes)(const std::uint8_t* codes, std::size_t count, std::size_t first,
                       std::size_t channels, std::uint8_t* rows, std::uint8_t* columns);

  // Adds gain to tile[count][32] where the bit is set, and takes it away elsewhere.
  void (*add_signs)(const std::uint32_t* signs, std::size_t words, std::size_t count,
                    std::int32_t gain, std::int32_t* tile);
  // Negates the elements of gradient[count][32] for which the bits of a and of b differ.
  void (*negate_unlike)(const std::uint32_t* a, const std::uint32_t* b, std::size_t words,
                        std::size_t count, std::int32_t* gradient);

  // The micro-kernels of all products, for whoever asks how fast they can be:
  // out[count][32] = multiplier * (initial + rows * panel) (+ out).
  void (*dot)(const ByteRows&, std::size_t count, const std::int8_t* panel, std::size_t quads,
              const std::int32_t* initial, std::int32_t multiplier, bool accumulate,
              std::int32_t* out, std::size_t out_stride);
  // tile[count][32] = inputs - 2 * the bits that differ (+ tile).
  void (*xnor)(const std::uint32_t* rows, std::size_t row_stride, std::size_t words,
               std::size_t count, const std::uint32_t* panel, std::int32_t inputs, bool accumulate,
               std::int32_t* tile);
};

}  // namespace edgetrain
