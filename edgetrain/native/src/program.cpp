#include "edgetrain/program.hpp"

#include "reader.hpp"

namespace edgetrain {

namespace {

constexpr std::int64_t magic = 0x3150415445474445;
constexpr std::size_t largest_arena = std::size_t{1} << 40;
constexpr std::size_t largest_batch = 8192;
constexpr std::size_t widest_layer = 65536;
constexpr std::size_t most_threads = 64;
constexpr std::size_t most_draws = 4;
constexpr std::size_t most_blocks = 256;
constexpr std::size_t most_classes = 256;

constexpr std::size_t largest_kernel = 15;
constexpr std::size_t most_pixels = std::size_t{1} << 20;

Holding read_holding(Reader& reader, WeightMode mode) {
  const std::size_t most = mode == WeightMode::bnn ? 4 : 0;
  return static_cast<Holding>(reader.within(0, most, "how signs are held"));
}

// The weights of a layer, and what moves them.
template <class Record>
void check_state(const Program& program, const Record& r, std::size_t rows, std::size_t columns) {
  const std::size_t bytes1 = moment1_bytes(r.holding, rows, columns);
  const std::size_t bytes2 = moment2_bytes(r.holding, rows, columns);
  fits(program, r.weights, state_bytes(r.holding, rows, columns), "the weights");
  fits_if(bytes1 != 0, program, r.moment1, bytes1, "the first moment");
  fits_if(bytes2 != 0, program, r.moment2, bytes2, "the second moment");
}

LinearRecord read_linear(Reader& reader, std::size_t layer) {
  open_record(reader, Opcode::linear, 21);
  LinearRecord record{};
  record.layer = reader.within(layer, layer, "the layer's number");
  record.mode = static_cast<WeightMode>(reader.within(0, 2, "the weight mode"));
  record.holding = read_holding(reader, record.mode);
  record.weights = reader.offset_or_absent();
  record.moment1 = reader.offset_or_absent();
  record.moment2 = reader.offset_or_absent();
  record.signs_in = reader.within(0, 1, "the kind of input") == 1;
  record.inputs = reader.within(1, widest_layer, "the number of inputs");
  record.outputs = reader.within(1, widest_layer, "the number of outputs");
  record.group = reader.within(1, lanes, "the group");
  record.input = reader.offset_or_absent();
  record.input_bytes = reader.offset_or_absent();
  record.input_gradient = reader.offset_or_absent();
  record.codes = reader.offset_or_absent();
  record.code_rows = reader.offset_or_absent();
  record.code_columns = reader.offset_or_absent();
  record.forward_tile = reader.offset_or_absent();
  record.forward_tile_bytes = reader.within(0, largest_arena, "the forward tile");
  record.backward_tile = reader.offset_or_absent();
  record.backward_tile_bytes = reader.within(0, largest_arena, "the backward tile");
  record.span = static_cast<std::int32_t>(reader.within(0, largest_span, "the span of scales"));
  if ((record.group & (record.group - 1)) != 0) {
    refuse("the group is not a power of two");
  }
  return record;
}

void check_linear(const Program& program, const LinearRecord& r, bool learns) {
  const std::size_t examples = program.examples;
  const std::size_t width = padded(r.inputs);
  const std::size_t depth = padded(r.outputs);
  const std::size_t row = r.mode == WeightMode::fsb ? (r.inputs + r.group - 1) / r.group : r.inputs;
  check_state(program, r, r.outputs, row);
  fits(program, r.input, r.signs_in ? examples * width / 8 : examples * width, "the input");
  if (r.signs_in && !is_binary(r)) {
    fits(program, r.input_bytes, examples * width, "the expanded input");
  } else if (r.input_bytes != absent) {
    refuse("an input is expanded that need not be");
  }
  if (r.input_gradient != absent) {
    fits(program, r.input_gradient, examples * width * 4, "the gradient of the input");
  }
  const bool trains = r.holding != Holding::signs;
  fits_if(learns, program, r.codes, program.draws * examples * depth / 2, "the gradient codes");
  fits_if(learns, program, r.code_rows, examples * depth, "the rows of codes");
  fits_if(learns && trains, program, r.code_columns, program.draws * depth * padded(examples, 4),
          "the columns of codes");
  const std::size_t sums = 2 * lanes * 4;
  const std::size_t forward = forward_panel_bytes(r) + sums + examples * lanes * 4;
  const std::size_t backward = !learns ? 0
                                       : input_panel_bytes(r, examples) + weight_panel_bytes(r) +
                                             sums + (trains ? gradient_rows * lanes * 4 : 0);
  if (r.forward_tile_bytes < forward || r.backward_tile_bytes < backward ||
      r.forward_tile_bytes % alignment != 0 || r.backward_tile_bytes % alignment != 0) {
    refuse("a tile is too small");
  }
  fits(program, r.forward_tile, program.threads * r.forward_tile_bytes, "the forward tile");
  fits_if(learns, program, r.backward_tile, program.threads * r.backward_tile_bytes,
          "the backward tile");
}

BatchNormRecord read_batch_norm(Reader& reader, std::size_t channels) {
  open_record(reader, Opcode::batch_norm, 12);
  BatchNormRecord record{};
  record.channels = reader.within(channels, channels, "the channels of batch norm");
  for (std::size_t* offset :
       {&record.shift, &record.mean, &record.deviation, &record.moment1, &record.moment2,
        &record.inverse_deviation, &record.output_gradient, &record.channel_sums,
        &record.channel_shifts, &record.sign, &record.logits}) {
    *offset = reader.offset_or_absent();
  }
  return record;
}

void check_batch_norm(const Program& program, const BatchNormRecord& r, std::size_t rows,
                      bool learns, bool last) {
  const std::size_t width = padded(r.channels);
  for (const std::size_t offset : {r.shift, r.mean, r.deviation}) {
    fits(program, offset, r.channels * 4, "the state of batch norm");
  }
  for (const std::size_t offset : {r.moment1, r.moment2}) {
    fits_if(learns, program, offset, r.channels * 4, "the moments of batch norm");
  }
  fits_if(learns, program, r.inverse_deviation, width * 4, "the inverse deviation");
  // Whether it may be absent, the block above decides.
  const bool remade = r.output_gradient == absent;
  fits_if(learns && !remade, program, r.output_gradient, rows * width * 4,
          "the gradient of the output");
  const std::size_t sums = (remade ? program.threads : 1) * tiles_of(width) * sizeof(GradientSums);
  fits_if(learns, program, r.channel_sums, sums + width * 16, "the channel sums");
  if (last) {
    fits(program, r.sign, program.examples * width / 8, "the last signs");
    fits(program, r.logits, program.examples * r.channels * 4, "the logits");
  }
}

SignRecord read_sign(Reader& reader, std::size_t channels) {
  open_record(reader, Opcode::sign, 3);
  SignRecord record{};
  record.channels = reader.within(channels, channels, "the channels of sign");
  record.sign = reader.offset_or_absent();
  record.mask = reader.offset_or_absent();
  return record;
}

LossRecord read_loss(Reader& reader, std::size_t channels) {
  open_record(reader, Opcode::loss, 4);
  LossRecord record{};
  record.classes = reader.within(channels, channels, "the number of classes");
  record.logits = reader.offset_or_absent();
  record.gradient = reader.offset_or_absent();
  record.labels = reader.offset_or_absent();
  if (record.classes > most_classes) {
    refuse("there are too many classes");
  }
  return record;
}

// As few groups as fill whole words with their channels and their outputs; all where none do, and
// all of data or of one channel each.
void read_bundle(ConvRecord& record) {
  if (record.source.channels % record.groups != 0 || record.source.outputs % record.groups != 0) {
    refuse("a convolution cannot be divided into its groups");
  }
  record.bundled = record.groups;
  for (std::size_t count = lanes; count > 0 && record.signs_in && !record.depthwise(); count /= 2) {
    const std::size_t parts = record.groups / count;
    if (record.groups % count == 0 && record.shape.channels / parts % lanes == 0 &&
        record.shape.outputs / parts % lanes == 0) {
      record.bundled = count;
    }
  }
  record.bundle = record.shape;
  record.bundle.channels /= record.groups / record.bundled;
  record.bundle.outputs /= record.groups / record.bundled;
}

ConvRecord read_conv(Reader& reader, std::size_t layer) {
  open_record(reader, Opcode::convolution, 30);
  ConvRecord record{};
  record.layer = reader.within(layer, layer, "the layer's number");
  record.mode = static_cast<WeightMode>(reader.within(0, 2, "the weight mode"));
  record.holding = read_holding(reader, record.mode);
  record.weights = reader.offset_or_absent();
  record.moment1 = reader.offset_or_absent();
  record.moment2 = reader.offset_or_absent();
  record.signs_in = reader.within(0, 1, "the kind of input") == 1;
  ConvShape& shape = record.source;
  shape.height = reader.within(1, most_pixels, "the height");
  shape.width = reader.within(1, most_pixels, "the width");
  shape.channels = reader.within(1, widest_layer, "the number of channels");
  shape.out_height = reader.within(1, shape.height, "the height of the output");
  shape.out_width = reader.within(1, shape.width, "the width of the output");
  shape.outputs = reader.within(1, widest_layer, "the number of outputs");
  shape.kernel_height = reader.within(1, largest_kernel, "the height of the kernel");
  shape.kernel_width = reader.within(1, largest_kernel, "the width of the kernel");
  shape.stride = reader.within(1, 2, "the stride");
  record.groups = reader.within(1, shape.channels, "the number of groups");
  shape.pad_top = reader.within(0, shape.kernel_height - 1, "the rows of padding");
  shape.pad_left = reader.within(0, shape.kernel_width - 1, "the columns of padding");
  shape.all_channels = shape.channels;
  shape.all_outputs = shape.outputs;
  for (std::size_t* offset : {&record.input, &record.input_gradient, &record.codes}) {
    *offset = reader.offset_or_absent();
  }
  record.forward_tile = reader.offset_or_absent();
  record.forward_tile_bytes = reader.within(0, largest_arena, "the forward tile");
  record.run_examples = reader.within(1, largest_batch, "the examples of a run");
  record.backward_tile = reader.offset_or_absent();
  record.backward_tile_bytes = reader.within(0, largest_arena, "the backward tile");
  record.sign_index = reader.offset_or_absent();
  record.span = static_cast<std::int32_t>(reader.within(0, largest_span, "the span of scales"));
  record.twice = reader.within(0, 1, "the making of the gradient") == 1;
  record.shape = shape;
  if (!record.signs_in) {
    record.shape = {shape.out_height,
                    shape.out_width,
                    shape.taps() * shape.channels,
                    shape.outputs,
                    shape.out_height,
                    shape.out_width,
                    1,
                    1,
                    1,
                    0,
                    0,
                    shape.taps() * shape.channels,
                    shape.outputs};
  }
  read_bundle(record);
  return record;
}

// Both ends of the kernel's path: it starts in the padding or on the image, and so it ends.
void check_extent(std::size_t size, std::size_t out, std::size_t kernel, std::size_t stride,
                  std::size_t pad) {
  const std::size_t reached = (out - 1) * stride + kernel;
  if (reached <= pad || reached > size + pad + kernel - 1) {
    refuse("a convolution leaves its image");
  }
}

bool computable(const ConvRecord& r) {
  if (!r.signs_in) {
    return r.mode != WeightMode::fsb;
  }
  return r.shape.channels % lanes == 0 &&
         (!r.depthwise() || (r.mode != WeightMode::fsb && r.span == 0));
}

std::size_t forward_bytes(const Block& block, std::size_t examples) {
  return block.conv.depthwise() ? depthwise_forward_layout(block, examples).end
                                : forward_layout(block).end;
}

std::size_t backward_bytes(const ConvRecord& record, std::size_t examples, std::size_t draws) {
  if (record.depthwise()) {
    return depthwise_backward_layout(record.shape).end;
  }
  std::size_t bytes = backward_layout(record, examples).end;
  if (can_look_up_weights(record, examples, draws)) {
    bytes = std::max(bytes, lookup_weight_layout(record, examples).end);
  }
  if (can_look_up_input(record)) {
    bytes = std::max(bytes, lookup_input_layout(record).end);
  }
  return bytes;
}

void check_conv(const Program& program, const Block& block, bool learns) {
  const ConvRecord& r = block.conv;
  const ConvShape& shape = r.shape;
  const ConvShape& source = r.source;
  const std::size_t examples = program.examples;
  if (!computable(r) || r.run_examples > examples) {
    refuse("a convolution cannot be computed");
  }
  const std::size_t seen = shape.channels / r.groups;
  check_extent(source.height, source.out_height, source.kernel_height, source.stride,
               source.pad_top);
  check_extent(source.width, source.out_width, source.kernel_width, source.stride, source.pad_left);
  // So that every sum of the products with weights, forward and backward, fits 32 bits.
  constexpr std::size_t deepest = 2 * widest_layer;
  if (source.height * source.width > most_pixels || shape.taps() * padded(seen) > deepest ||
      shape.taps() * padded(shape.outputs / r.groups) > deepest) {
    refuse("a convolution is too large");
  }
  // So that every sum of the gradient of the weights fits 32 bits.
  const std::size_t largest = static_cast<std::size_t>(code_zero) * (r.signs_in ? 1 : data_zero);
  if (program.draws * examples * shape.pixels() > static_cast<std::size_t>(INT32_MAX) / largest) {
    refuse("a micro-batch has too many pixels");
  }
  const std::size_t rows = r.weight_rows() / (r.mode == WeightMode::fsb ? shape.taps() : 1);
  check_state(program, r, rows, r.weight_columns());
  const std::size_t pixels = shape.height * shape.width;
  const std::size_t width = padded(shape.channels);
  if (r.gathers()) {
    if (r.layer != 0 || r.groups != 1) {
      refuse("patches of the data cannot be gathered");
    }
  } else {
    fits(program, r.input, examples * pixels * width / (r.signs_in ? 8 : 1), "the input");
  }
  if (r.twice && (!r.passes() || r.depthwise())) {
    refuse("a gradient cannot be made twice");
  }
  if (r.passes()) {
    fits(program, r.input_gradient, (r.twice ? program.threads : examples) * pixels * width * 4,
         "the gradient of the input");
  }
  fits_if(learns, program, r.codes,
          program.draws * examples * block.pixels() * padded(shape.outputs) / 2,
          "the gradient codes");
  if (can_look_up_input(r)) {
    fits(program, r.sign_index, tiles_of(shape.channels) * sign_index_tile(r.bundle) * 2,
         "the index of signs");
  }
  if (r.forward_tile_bytes < forward_bytes(block, examples) ||
      r.backward_tile_bytes < (learns ? backward_bytes(r, examples, program.draws) : 0) ||
      r.forward_tile_bytes % alignment != 0 || r.backward_tile_bytes % alignment != 0) {
    refuse("a tile is too small");
  }
  fits(program, r.forward_tile, program.threads * r.forward_tile_bytes, "the forward tile");
  fits_if(learns, program, r.backward_tile, program.threads * r.backward_tile_bytes,
          "the backward tile");
}

PoolRecord read_pool(Reader& reader, const ConvShape& shape) {
  PoolRecord record{};
  record.average = reader.next_is(Opcode::average_pool);
  open_record(reader, record.average ? Opcode::average_pool : Opcode::max_pool, 6);
  reader.within(shape.outputs, shape.outputs, "the channels of a pool");
  record.window_height = reader.within(1, 2, "the height of a window");
  record.window_width = reader.within(1, 2, "the width of a window");
  record.height = reader.within(1, shape.out_height / record.window_height, "the pooled height");
  record.width = reader.within(1, shape.out_width / record.window_width, "the pooled width");
  record.argument = reader.offset_or_absent();
  return record;
}

// What flows into a block: signs of so many pixels and channels, or the data.
struct Flow {
  std::size_t pixels;
  std::size_t channels;
  bool signs;
};

void read_weights(Reader& reader, const Program& program, const Flow& flow, Block& block) {
  const std::size_t index = program.blocks.size();
  block.convolutional = reader.next_is(Opcode::convolution);
  bool fitting;
  if (block.convolutional) {
    block.conv = read_conv(reader, index);
    const ConvShape& source = block.conv.source;
    const std::size_t pixels = source.height * source.width;
    // Only the data are gathered into patches.
    fitting = block.conv.signs_in == flow.signs && flow.signs == (index != 0) &&
              (flow.signs ? pixels == flow.pixels && source.channels == flow.channels
                          : pixels * source.channels == flow.channels);
    block.pooled = reader.next_is(Opcode::max_pool) || reader.next_is(Opcode::average_pool);
    if (block.pooled) {
      block.pool = read_pool(reader, block.conv.shape);
    }
  } else {
    block.linear = read_linear(reader, index);
    fitting = block.linear.signs_in == flow.signs &&
              block.linear.inputs == flow.pixels * flow.channels &&
              (flow.pixels == 1 || flow.channels % lanes == 0);
  }
  if (!fitting) {
    refuse("a layer does not fit the one below");
  }
  const std::size_t below =
      block.convolutional ? block.conv.input_gradient : block.linear.input_gradient;
  if ((below == absent) != (index <= program.lowest)) {
    refuse("a gradient leads nowhere");
  }
  const std::size_t input = block.convolutional ? block.conv.input : block.linear.input;
  if (index == 0 && input != program.input) {
    refuse("the first layer does not read the input");
  }
}

Block read_block(Reader& reader, Program& program, std::size_t count) {
  Block block{};
  Flow flow = {1, program.input_features, false};
  if (!program.blocks.empty()) {
    const Block& below = program.blocks.back();
    flow = {below.averaged ? 1 : below.pixels(), below.norm.channels, !below.averaged};
  }
  block.last = program.blocks.size() + 1 == count;
  read_weights(reader, program, flow, block);
  const std::size_t rows = program.examples * block.pixels();
  const bool learns = program.blocks.size() >= program.lowest;
  if (block.convolutional) {
    check_conv(program, block, learns);
    if (block.pooled) {
      fits_if(learns && !block.pool.average, program, block.pool.argument,
              2 * rows * padded(block.conv.shape.outputs) / 8, "the arguments of max pool");
    }
  } else {
    check_linear(program, block.linear, learns);
  }
  const std::size_t outputs = block.convolutional ? block.conv.shape.outputs : block.linear.outputs;
  // So that it fits 32 bits, whatever shortcuts add to it.
  constexpr std::size_t most = INT32_MAX - most_copies * largest_entry;
  if (largest_input_gradient(block) > most) {
    refuse("a channel's scale is too far from its tensor's");
  }
  if (block.last && block.convolutional) {
    refuse("it ends with a convolution");
  }
  read_add(reader, program, block);
  block.norm = read_batch_norm(reader, outputs);
  check_batch_norm(program, block.norm, rows, learns, block.last);
  if (learns && block.span() > 0) {
    fits(program, block.norm.channel_shifts, padded(outputs), "the scales of channels");
  }
  return block;
}

// Sums that are made anew for every pass are those of the layer alone.
void check_streamed(const Program& program) {
  for (const Block& block : program.blocks) {
    const bool streamed = block.convolutional && block.conv.run_examples < program.examples;
    if (streamed && (block.conv.depthwise() || block.shortcut.join != Join::none)) {
      refuse("sums that never exist whole are asked for");
    }
  }
}

// A gradient that is made twice has room nowhere, and no shortcut may ask for it.
void check_remade(Program& program) {
  for (std::size_t index = 0; index < program.blocks.size(); ++index) {
    Block& block = program.blocks[index];
    block.remade = !block.last && program.blocks[index + 1].convolutional &&
                   program.blocks[index + 1].conv.twice;
    const bool joined = block.copies != 0 || block.shortcut.join != Join::none;
    const bool nowhere = index >= program.lowest && block.norm.output_gradient == absent;
    if (block.remade != nowhere || (block.remade && joined)) {
      refuse("a gradient that is made twice is asked for");
    }
  }
}

}  // namespace

Program parse_program(const std::int64_t* words, std::size_t count) {
  Reader reader(words, count);
  if (reader.word() != magic) {
    refuse("it is not a plan of this version");
  }
  Program program{};
  program.examples = reader.within(1, largest_batch, "the micro-batch");
  program.threads = reader.within(1, most_threads, "the number of threads");
  program.arena_bytes = reader.within(alignment, largest_arena, "the arena");
  program.input_features = reader.within(1, widest_layer, "the number of features");
  program.input = reader.offset_or_absent();
  program.draws = reader.within(1, most_draws, "the number of draws");
  const std::size_t blocks = reader.within(1, most_blocks, "the number of blocks");
  program.lowest = reader.within(0, blocks - 1, "the lowest block that trains");
  program.blocks.reserve(blocks);
  for (std::size_t index = 0; index < blocks; ++index) {
    Block block = read_block(reader, program, blocks);
    if (block.last) {
      program.loss = read_loss(reader, block.norm.channels);
      fits(program, program.loss.logits, program.examples * program.loss.classes * 4, "the logits");
      fits(program, program.loss.gradient, program.examples * padded(program.loss.classes) * 4,
           "the gradient of the loss");
      fits(program, program.loss.labels, program.examples, "the labels");
    } else {
      block.sign = read_sign(reader, block.norm.channels);
      const std::size_t rows = program.examples * block.pixels();
      const std::size_t bytes = rows * padded(block.sign.channels) / 8;
      fits(program, block.sign.sign, bytes, "the signs");
      fits_if(index >= program.lowest, program, block.sign.mask, bytes, "the mask");
      read_bit_shortcut(reader, program, block);
      read_average(reader, program, block);
    }
    program.blocks.push_back(block);
  }
  check_streamed(program);
  check_remade(program);
  if (!reader.finished()) {
    refuse("it goes on past its end");
  }
  return program;
}

}  // namespace edgetrain
