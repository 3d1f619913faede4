#include "edgetrain/program.hpp"

#include <stdexcept>
#include <string>

namespace edgetrain {

namespace {

constexpr std::int64_t magic = 0x3150415445474445;
constexpr std::size_t largest_arena = std::size_t{1} << 40;
constexpr std::size_t largest_batch = 8192;
constexpr std::size_t widest_layer = 65536;
constexpr std::size_t most_threads = 64;
constexpr std::size_t most_blocks = 256;
constexpr std::size_t most_classes = 256;
constexpr std::size_t alignment = 64;

enum class Opcode : std::int64_t { linear = 1, batch_norm = 2, sign = 3, loss = 4 };

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("the plan is damaged: " + what);
}

class Reader {
 public:
  Reader(const std::int64_t* words, std::size_t count) : words_(words), count_(count) {}

  std::int64_t word() {
    if (position_ == count_) {
      refuse("it ends early");
    }
    return words_[position_++];
  }

  std::size_t within(std::size_t least, std::size_t most, const char* what) {
    const std::int64_t value = word();
    if (value < 0 || static_cast<std::size_t>(value) < least ||
        static_cast<std::size_t>(value) > most) {
      refuse(std::string(what) + " is " + std::to_string(value));
    }
    return static_cast<std::size_t>(value);
  }

  std::size_t offset_or_absent() {
    const std::int64_t value = word();
    return value == -1 ? absent : static_cast<std::size_t>(value);
  }

  std::size_t position() const { return position_; }
  bool finished() const { return position_ == count_; }

 private:
  const std::int64_t* words_;
  std::size_t count_;
  std::size_t position_ = 0;
};

// Sizes and offsets are bounded by the arena's limit, so their sum cannot wrap.
void fits(const Program& program, std::size_t offset, std::size_t bytes, const char* what) {
  if (offset % alignment != 0 || offset > program.arena_bytes ||
      bytes > program.arena_bytes - offset) {
    refuse(std::string(what) + " lies outside the arena");
  }
}

void open_record(Reader& reader, Opcode opcode, std::size_t length) {
  if (reader.word() != static_cast<std::int64_t>(opcode)) {
    refuse("an op stands where another is expected");
  }
  reader.within(length, length, "the length of a record");
}

LinearRecord read_linear(Reader& reader, std::size_t layer) {
  open_record(reader, Opcode::linear, 17);
  LinearRecord record{};
  record.layer = reader.within(layer, layer, "the layer's number");
  record.mode = static_cast<WeightMode>(reader.within(0, 2, "the weight mode"));
  record.signs_in = reader.within(0, 1, "the kind of input") == 1;
  record.inputs = reader.within(1, widest_layer, "the number of inputs");
  record.outputs = reader.within(1, widest_layer, "the number of outputs");
  record.group = reader.within(1, lanes, "the group");
  record.weights = reader.offset_or_absent();
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
  if ((record.group & (record.group - 1)) != 0) {
    refuse("the group is not a power of two");
  }
  return record;
}

void check_linear(const Program& program, const LinearRecord& r) {
  const std::size_t examples = program.examples;
  const std::size_t width = padded(r.inputs);
  const std::size_t depth = padded(r.outputs);
  const std::size_t row = r.mode == WeightMode::fsb ? (r.inputs + r.group - 1) / r.group : r.inputs;
  fits(program, r.weights, row * r.outputs, "the weights");
  fits(program, r.input, r.signs_in ? examples * width / 8 : examples * width, "the input");
  if (r.signs_in && !is_binary(r)) {
    fits(program, r.input_bytes, examples * width, "the expanded input");
  } else if (r.input_bytes != absent) {
    refuse("an input is expanded that need not be");
  }
  if (r.input_gradient != absent) {
    fits(program, r.input_gradient, examples * width * 4, "the gradient of the input");
  }
  fits(program, r.codes, examples * depth / 2, "the gradient codes");
  fits(program, r.code_rows, examples * depth, "the rows of codes");
  fits(program, r.code_columns, depth * padded(examples, 4), "the columns of codes");
  const std::size_t sums = 2 * lanes * 4;
  const std::size_t forward = forward_panel_bytes(r) + sums + examples * lanes * 4;
  const std::size_t backward =
      input_panel_bytes(examples) + weight_panel_bytes(r) + sums + gradient_rows * lanes * 4;
  if (r.forward_tile_bytes < forward || r.backward_tile_bytes < backward ||
      r.forward_tile_bytes % alignment != 0 || r.backward_tile_bytes % alignment != 0) {
    refuse("a tile is too small");
  }
  fits(program, r.forward_tile, program.threads * r.forward_tile_bytes, "the forward tile");
  fits(program, r.backward_tile, program.threads * r.backward_tile_bytes, "the backward tile");
}

BatchNormRecord read_batch_norm(Reader& reader, std::size_t channels) {
  open_record(reader, Opcode::batch_norm, 11);
  BatchNormRecord record{};
  record.channels = reader.within(channels, channels, "the channels of batch norm");
  for (std::size_t* offset : {&record.shift, &record.moment1, &record.moment2, &record.mean,
                              &record.deviation, &record.inverse_deviation, &record.output_gradient,
                              &record.channel_sums, &record.sign, &record.logits}) {
    *offset = reader.offset_or_absent();
  }
  return record;
}

void check_batch_norm(const Program& program, const BatchNormRecord& r, bool last) {
  const std::size_t width = padded(r.channels);
  for (const std::size_t offset : {r.shift, r.moment1, r.moment2, r.mean, r.deviation}) {
    fits(program, offset, r.channels * 4, "the state of batch norm");
  }
  fits(program, r.inverse_deviation, width * 4, "the inverse deviation");
  fits(program, r.output_gradient, program.examples * width * 4, "the gradient of the output");
  fits(program, r.channel_sums, width * 28 + width / lanes * 4, "the channel sums");
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

Block read_block(Reader& reader, const Program& program, std::size_t index, std::size_t count) {
  Block block{};
  block.last = index + 1 == count;
  block.linear = read_linear(reader, index);
  const std::size_t expected =
      index == 0 ? program.input_features : program.blocks.back().linear.outputs;
  if (block.linear.inputs != expected || block.linear.signs_in != (index > 0)) {
    refuse("a layer does not fit the one below");
  }
  if ((block.linear.input_gradient == absent) != (index == 0)) {
    refuse("a gradient leads nowhere");
  }
  check_linear(program, block.linear);
  block.norm = read_batch_norm(reader, block.linear.outputs);
  check_batch_norm(program, block.norm, block.last);
  return block;
}

}  // namespace

bool is_binary(const LinearRecord& record) {
  return record.signs_in && record.mode == WeightMode::bnn;
}

std::size_t forward_panel_bytes(const LinearRecord& record) {
  return padded(padded(record.inputs) * (is_binary(record) ? sizeof(std::uint32_t) : lanes),
                alignment);
}

std::size_t input_panel_bytes(std::size_t examples) {
  return padded(padded(examples, 4) * lanes, alignment);
}

std::size_t weight_panel_bytes(const LinearRecord& record) {
  return padded(record.outputs) * lanes;
}

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
  fits(program, program.input, program.examples * padded(program.input_features), "the input");
  const std::size_t blocks = reader.within(1, most_blocks, "the number of blocks");
  program.blocks.reserve(blocks);
  for (std::size_t index = 0; index < blocks; ++index) {
    Block block = read_block(reader, program, index, blocks);
    if (block.last) {
      program.loss = read_loss(reader, block.linear.outputs);
      fits(program, program.loss.logits, program.examples * program.loss.classes * 4, "the logits");
      fits(program, program.loss.gradient, program.examples * padded(program.loss.classes) * 4,
           "the gradient of the loss");
      fits(program, program.loss.labels, program.examples, "the labels");
    } else {
      block.sign = read_sign(reader, block.linear.outputs);
      const std::size_t bytes = program.examples * padded(block.sign.channels) / 8;
      fits(program, block.sign.sign, bytes, "the signs");
      fits(program, block.sign.mask, bytes, "the mask");
    }
    program.blocks.push_back(block);
  }
  if (!reader.finished()) {
    refuse("it goes on past its end");
  }
  return program;
}

}  // namespace edgetrain
