// A plan as the engine reads it. The words come from outside, so every size and every offset is
// checked here, once: after parsing, nothing can reach past the arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "edgetrain/arena.hpp"
#include "edgetrain/kernels.hpp"

namespace edgetrain {

struct LinearRecord {
  std::size_t layer;
  WeightMode mode;
  Holding holding;
  bool signs_in;
  std::size_t inputs;
  std::size_t outputs;
  std::size_t group;
  std::size_t weights;
  // Absent where latents have none.
  std::size_t moment1;
  std::size_t moment2;
  std::size_t input;
  std::size_t input_bytes;
  std::size_t input_gradient;
  std::size_t codes;
  std::size_t code_rows;
  std::size_t code_columns;
  std::size_t forward_tile;
  std::size_t forward_tile_bytes;
  std::size_t backward_tile;
  std::size_t backward_tile_bytes;
  // Powers of two by which a channel's scale may lie below its tensor's; 0 for one scale a tensor.
  std::int32_t span;
};

// Whether the layer's product is a popcount: bits meet bits.
bool is_binary(const LinearRecord& record);
// Where a tile's panels end, each rounded up to a cache line; sums and results follow.
std::size_t forward_panel_bytes(const LinearRecord& record);
std::size_t input_panel_bytes(const LinearRecord& record, std::size_t examples);
std::size_t weight_panel_bytes(const LinearRecord& record);

struct ConvRecord {
  std::size_t layer;
  WeightMode mode;
  Holding holding;
  bool signs_in;
  // Parts of channels and outputs that do not meet.
  std::size_t groups;
  // As the kernels see it: where the data are gathered into patches, a 1 x 1 kernel over patches.
  ConvShape shape;
  // Groups that the kernels take at a time, and their shape.
  std::size_t bundled;
  ConvShape bundle;
  // As the data lie.
  ConvShape source;
  std::size_t weights;
  // Absent where latents have none.
  std::size_t moment1;
  std::size_t moment2;
  std::size_t input;
  std::size_t input_gradient;
  std::size_t codes;
  std::size_t forward_tile;
  std::size_t forward_tile_bytes;
  // Examples whose sums exist at a time: all, or some, made anew for each pass over them.
  std::size_t run_examples;
  std::size_t backward_tile;
  std::size_t backward_tile_bytes;
  // The weights' signs as indices; absent where no gradient of the input can be looked up.
  std::size_t sign_index;
  // Powers of two by which a channel's scale may lie below its tensor's; 0 for one scale a tensor.
  std::int32_t span;
  // Whether the gradient of the input is made twice, an example at a time; input_gradient is then
  // room for one example a thread.
  bool twice;

  bool passes() const { return input_gradient != absent; }
  bool trains() const { return holding != Holding::signs; }
  // Whether its input has no place, because patches of the data are gathered as they are read.
  bool gathers() const { return !signs_in && input == absent; }
  std::size_t bundles() const { return groups / bundled; }
  std::size_t first_output(std::size_t number) const { return number * bundle.outputs; }
  // Whether every output sees one channel, its own.
  bool depthwise() const {
    return signs_in && groups > 1 && groups == shape.channels && groups == shape.outputs;
  }
  // The weights as a matrix: a row an output and tap, or a tap of all where each sees its own.
  std::size_t weight_rows() const { return (depthwise() ? 1 : shape.outputs) * shape.taps(); }
  std::size_t weight_columns() const {
    return depthwise() ? shape.channels : shape.channels / groups;
  }
};

// A tile of a layer's channels or outputs: the number of its bundle, and its place there.
struct BundleTile {
  std::size_t bundle;
  std::size_t first;
};

constexpr BundleTile in_bundle(std::size_t tile, std::size_t width) {
  return {tile / tiles_of(width), tile % tiles_of(width) * lanes};
}

struct PoolRecord {
  std::size_t window_height;
  std::size_t window_width;
  std::size_t height;
  std::size_t width;
  // Whether a window is summed; if not, where its maximum was found is kept.
  bool average;
  std::size_t argument;
};

// Where the parts of a tile's scratch begin, in bytes, and where the last ends.
struct ConvForwardLayout {
  std::size_t tap_sums;
  std::size_t initial;
  std::size_t image;
  std::size_t unpooled;
  std::size_t tile;
  std::size_t end;
};
struct ConvBackwardLayout {
  std::size_t input_panel;
  std::size_t gradient;
  std::size_t initial;
  std::size_t code_rows;
  std::size_t code_image;
  std::size_t weight_panel;
  std::size_t patches;
  std::size_t end;
};
// The same scratch where gradients are looked up, one after the other.
struct LookupWeightLayout {
  std::size_t tables;
  std::size_t index;
  std::size_t gradient;
  std::size_t end;
};
struct LookupInputLayout {
  std::size_t tables;
  std::size_t end;
};

struct DepthwiseForwardLayout {
  std::size_t image;
  std::size_t unpooled;
  std::size_t tile;
  std::size_t end;
};
struct DepthwiseBackwardLayout {
  std::size_t image;
  std::size_t codes;
  std::size_t gradient;
  std::size_t end;
};

struct BatchNormRecord {
  std::size_t channels;
  std::size_t shift;
  std::size_t mean;
  std::size_t deviation;
  // Present where a gradient arrives.
  std::size_t moment1;
  std::size_t moment2;
  std::size_t inverse_deviation;
  std::size_t output_gradient;
  std::size_t channel_sums;
  // Present where channels have scales of their own.
  std::size_t channel_shifts;
  // Present in the last block alone.
  std::size_t sign;
  std::size_t logits;
};

struct SignRecord {
  std::size_t channels;
  std::size_t sign;
  // Present where a gradient arrives.
  std::size_t mask;
};

enum class Join { none, add, xnor, either };

// What reads the bits that left an earlier block, and where the codes of their gradient lie.
struct ShortcutRecord {
  Join join;
  std::size_t source;
  std::size_t codes;
  // Of the residual one: what a bit counts, and the step between the pixels that it reads.
  std::int32_t gain;
  std::size_t stride;

  bool joins_bits() const { return join == Join::xnor || join == Join::either; }
};

struct LossRecord {
  std::size_t classes;
  std::size_t logits;
  std::size_t gradient;
  std::size_t labels;
};

struct Block {
  // One of the two opens the block.
  bool convolutional;
  LinearRecord linear;
  ConvRecord conv;
  bool pooled;
  PoolRecord pool;
  BatchNormRecord norm;
  // Meaningful in every block but the last.
  SignRecord sign;
  ShortcutRecord shortcut;
  // How many codes of shortcuts meet in an element of the gradient of what leaves the block.
  std::size_t copies;
  // Whether the layer above reads sums over all pixels, and where they lie.
  bool averaged;
  std::size_t features;
  bool last;
  // Whether the layer above makes the gradient of this block's output twice.
  bool remade;

  // What one example leaves behind: an image, after pooling.
  std::size_t height() const {
    return !convolutional ? 1 : pooled ? pool.height : conv.shape.out_height;
  }
  std::size_t width() const {
    return !convolutional ? 1 : pooled ? pool.width : conv.shape.out_width;
  }
  std::size_t pixels() const { return height() * width(); }
  std::size_t layer() const { return convolutional ? conv.layer : linear.layer; }
  std::int32_t span() const { return convolutional ? conv.span : linear.span; }
};

// The most that one code of a shortcut adds to a gradient, and the most codes that meet in an
// element, so that its sum with what the block above sends fits 32 bits.
constexpr std::int32_t largest_entry = 1 << 20;
constexpr std::size_t most_copies = 7;
constexpr std::size_t largest_gain = std::size_t{1} << 19;

// The largest magnitude that a sum of the gradient of the block's input can have.
std::size_t largest_input_gradient(const Block& block);

ConvForwardLayout forward_layout(const Block& block);
ConvBackwardLayout backward_layout(const ConvRecord& record, std::size_t examples);
LookupWeightLayout lookup_weight_layout(const ConvRecord& record, std::size_t examples);
LookupInputLayout lookup_input_layout(const ConvRecord& record);
// Whether lookup can take the place of products, where an instruction set has it.
bool can_look_up_weights(const ConvRecord& record, std::size_t examples, std::size_t draws);
bool can_look_up_input(const ConvRecord& record);
std::size_t sign_index_tile(const ConvShape& shape);
ConvBackwardLayout backward_layout(const Block& block, std::size_t examples);
DepthwiseForwardLayout depthwise_forward_layout(const Block& block, std::size_t examples);
DepthwiseBackwardLayout depthwise_backward_layout(const ConvShape& shape);

struct Program {
  std::size_t examples;
  std::size_t threads;
  // Of gradient codes, whose products the gradient of the weights sums.
  std::size_t draws;
  std::size_t arena_bytes;
  std::size_t input_features;
  std::size_t input;
  // The number of the lowest block that trains: below it no gradient exists.
  std::size_t lowest;
  std::vector<Block> blocks;
  LossRecord loss;
};

// Throws std::invalid_argument for a program that is damaged or does not fit its arena.
Program parse_program(const std::int64_t* words, std::size_t count);

}  // namespace edgetrain
