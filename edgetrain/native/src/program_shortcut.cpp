// What may stand at the end of a block: shortcuts, which read what lies below, fits, and is read by
// few enough, and averages.
#include "reader.hpp"

namespace edgetrain {

namespace {

// The block below whose bits a shortcut reads, each `copies` times.
Block& source_of(Program& program, const ShortcutRecord& record, std::size_t copies) {
  Block& source = program.blocks[record.source];
  source.copies += copies;
  if (source.copies > most_copies) {
    refuse("too many shortcuts read one block");
  }
  return source;
}

std::size_t read_source(Reader& reader, const Program& program) {
  if (program.blocks.empty()) {
    refuse("a shortcut has nothing below");
  }
  return reader.within(0, program.blocks.size() - 1, "the source of a shortcut");
}

}  // namespace

void read_add(Reader& reader, Program& program, Block& block) {
  if (!reader.next_is(Opcode::add)) {
    return;
  }
  open_record(reader, Opcode::add, 3);
  ShortcutRecord& record = block.shortcut;
  record.join = Join::add;
  record.source = read_source(reader, program);
  record.gain = static_cast<std::int32_t>(reader.within(1, largest_gain, "the gain of a shortcut"));
  record.stride = reader.within(1, 2, "the stride of a shortcut");
  record.codes = block.convolutional ? block.conv.codes : block.linear.codes;
  if (block.span() > 0) {
    refuse("a shortcut sends codes of many scales");
  }
  const std::size_t outputs = block.convolutional ? block.conv.shape.outputs : block.linear.outputs;
  const std::size_t channels = program.blocks[record.source].norm.channels;
  if (block.last || outputs % channels != 0 || (outputs != channels && channels % lanes != 0)) {
    refuse("a shortcut does not fit");
  }
  const Block& source = source_of(program, record, outputs / channels);
  if ((block.height() - 1) * record.stride >= source.height() ||
      (block.width() - 1) * record.stride >= source.width()) {
    refuse("a shortcut leaves the image below");
  }
}

void read_bit_shortcut(Reader& reader, Program& program, Block& block) {
  const bool xnor = reader.next_is(Opcode::xnor);
  if (!xnor && !reader.next_is(Opcode::either)) {
    return;
  }
  open_record(reader, xnor ? Opcode::xnor : Opcode::either, 2);
  if (block.shortcut.join != Join::none) {
    refuse("a block has two shortcuts");
  }
  ShortcutRecord& record = block.shortcut;
  record.join = xnor ? Join::xnor : Join::either;
  record.source = read_source(reader, program);
  record.codes = reader.offset_or_absent();
  const std::size_t channels = block.norm.channels;
  const Block& source = source_of(program, record, 1);
  if (source.height() != block.height() || source.width() != block.width() ||
      source.norm.channels != channels) {
    refuse("a shortcut does not fit");
  }
  fits_if(program.blocks.size() >= program.lowest, program, record.codes,
          program.examples * block.pixels() * padded(channels) / 2, "the codes of a shortcut");
}

void read_average(Reader& reader, const Program& program, Block& block) {
  if (!reader.next_is(Opcode::global_average_pool)) {
    return;
  }
  open_record(reader, Opcode::global_average_pool, 2);
  const std::size_t channels = block.norm.channels;
  reader.within(channels, channels, "the channels of an average");
  block.features = reader.offset_or_absent();
  // So that every sum fits a signed byte.
  if (block.pixels() >= static_cast<std::size_t>(data_zero)) {
    refuse("an average has too many pixels");
  }
  fits(program, block.features, program.examples * padded(channels), "the averages");
  block.averaged = true;
}

}  // namespace edgetrain
