// How large the parts of a plan's scratch are, and where they begin.
#include <algorithm>

#include "reader.hpp"

namespace edgetrain {

namespace {

constexpr std::size_t row_bytes = lanes * sizeof(std::int32_t);
// A table of sums, or an index of 32 channels.
constexpr std::size_t table_bytes = lanes * sizeof(std::int16_t);

}  // namespace

bool is_binary(const LinearRecord& record) {
  return record.signs_in && record.mode == WeightMode::bnn;
}

std::size_t largest_input_gradient(const Block& block) {
  const WeightMode mode = block.convolutional ? block.conv.mode : block.linear.mode;
  const std::size_t weight = mode == WeightMode::bnn ? 1 : mode == WeightMode::int8 ? 128 : 255;
  const std::size_t terms =
      block.convolutional ? block.conv.shape.taps() * block.conv.shape.outputs / block.conv.groups
                          : block.linear.outputs;
  return (static_cast<std::size_t>(code_zero) * weight * terms) << block.span();
}

std::size_t forward_panel_bytes(const LinearRecord& record) {
  return padded(padded(record.inputs) * (is_binary(record) ? sizeof(std::uint32_t) : lanes),
                alignment);
}

std::size_t input_panel_bytes(const LinearRecord& record, std::size_t examples) {
  return record.holding == Holding::signs ? 0 : padded(padded(examples, 4) * lanes, alignment);
}

std::size_t weight_panel_bytes(const LinearRecord& record) {
  return padded(record.outputs) * lanes;
}

ConvForwardLayout forward_layout(const Block& block) {
  const ConvShape& shape = block.conv.bundle;
  const bool binary =
      block.conv.signs_in && block.conv.mode == WeightMode::bnn && block.conv.bundled == 1;
  const std::size_t width = padded(shape.channels);
  const std::size_t planes = planes_of(block.conv.mode);
  const std::size_t image = shape.image_height() * shape.image_width() * width;
  ConvForwardLayout layout{};
  layout.tap_sums = padded(shape.taps() * width * (binary ? lanes / 8 : lanes) * planes, alignment);
  layout.initial = layout.tap_sums + shape.taps() * row_bytes;
  layout.image = layout.initial + 2 * row_bytes;
  const bool copied = block.conv.signs_in || block.conv.gathers();
  layout.unpooled = layout.image + (copied ? padded(binary ? image / 8 : image, alignment) : 0);
  layout.tile = layout.unpooled + (block.pooled ? shape.pixels() * row_bytes : 0);
  layout.end = layout.tile + block.conv.run_examples * block.pixels() * row_bytes;
  return layout;
}

ConvBackwardLayout backward_layout(const ConvRecord& record, std::size_t examples) {
  const ConvShape& shape = record.bundle;
  const std::size_t depth = padded(shape.outputs);
  const std::size_t chunk =
      record.trains() ? chunk_examples(examples, shape.pixels()) * padded(shape.pixels(), 4) : 0;
  const std::size_t rows = record.trains() ? shape.taps() * depth : 0;
  ConvBackwardLayout layout{};
  layout.input_panel = padded(chunk * depth, alignment);
  layout.gradient = layout.input_panel + padded(chunk * lanes, alignment);
  layout.initial = layout.gradient + rows * row_bytes;
  layout.code_rows = layout.initial + 2 * row_bytes;
  layout.code_image = layout.code_rows + padded(shape.pixels() * depth, alignment);
  const std::size_t image = shape.code_height() * shape.code_width() * depth;
  layout.weight_panel = layout.code_image + (record.passes() ? padded(image, alignment) : 0);
  const std::size_t planes = gradient_planes(record.mode, record.span > 0);
  layout.patches =
      layout.weight_panel + (record.passes() ? planes * shape.taps() * depth * lanes : 0);
  layout.end = layout.patches + (record.gathers() ? shape.pixels() * padded(shape.channels) : 0);
  return layout;
}

DepthwiseForwardLayout depthwise_forward_layout(const Block& block, std::size_t examples) {
  const ConvShape& shape = block.conv.shape;
  DepthwiseForwardLayout layout{};
  layout.image = padded(shape.taps() * lanes, alignment);
  layout.unpooled =
      layout.image + padded(shape.image_height() * shape.image_width() * lanes, alignment);
  layout.tile = layout.unpooled + (block.pooled ? shape.pixels() * row_bytes : 0);
  layout.end = layout.tile + examples * block.pixels() * row_bytes;
  return layout;
}

DepthwiseBackwardLayout depthwise_backward_layout(const ConvShape& shape) {
  DepthwiseBackwardLayout layout{};
  layout.image = padded(shape.taps() * lanes, alignment);
  layout.codes =
      layout.image + padded(shape.image_height() * shape.image_width() * lanes, alignment);
  layout.gradient =
      layout.codes + padded(shape.code_height() * shape.code_width() * lanes, alignment);
  layout.end = layout.gradient + shape.taps() * row_bytes;
  return layout;
}

LookupWeightLayout lookup_weight_layout(const ConvRecord& record, std::size_t examples) {
  const ConvShape& shape = record.bundle;
  const std::size_t tiles = tiles_of(shape.channels);
  LookupWeightLayout layout{};
  layout.tables = lookup_column_bytes;
  layout.index = layout.tables + 4 * most_lookups * table_bytes;
  layout.gradient = layout.index + shape.kernel_height * shape.width * tiles *
                                       indices_of(groups_of(examples)) * table_bytes;
  layout.end = layout.gradient + tiles * shape.taps() * lanes * row_bytes;
  return layout;
}

LookupInputLayout lookup_input_layout(const ConvRecord& record) {
  const ConvShape& shape = record.bundle;
  LookupInputLayout layout{};
  layout.tables = padded(shape.pixels() * code_stride(shape.outputs) + 1, alignment);
  layout.end = layout.tables + shape.code_width() * groups_of(shape.outputs) * table_bytes;
  return layout;
}

bool can_look_up_weights(const ConvRecord& record, std::size_t examples, std::size_t draws) {
  return record.trains() && record.signs_in && !record.depthwise() && draws == 1 &&
         groups_of(examples) <= most_lookups;
}

bool can_look_up_input(const ConvRecord& record) {
  return record.passes() && record.signs_in && record.bundled == 1 && record.span == 0 &&
         record.mode == WeightMode::bnn && record.shape.stride == 1 &&
         record.shape.kernel_width > 1;
}

std::size_t sign_index_tile(const ConvShape& shape) {
  return shape.taps() * indices_of(groups_of(shape.outputs)) * lanes;
}

}  // namespace edgetrain
