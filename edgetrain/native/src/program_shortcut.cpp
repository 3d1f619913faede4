// What may stand at the end of a block: shortcuts, which read what lies below, fits, and is read by
// few enough, and averages.
#include "reader.hpp"

namespace edgetrain {

void read_bit_shortcut(Reader& reader, Program& program, Block& block) {
  const bool xnor = reader.next_is(Opcode::xnor);
  if (!xnor && !reader.next_is(Opcode::either)) {
    return;
  }
  open_record(reader, xnor ? Opcode::xnor : Opcode::either, 2);
  if (program.blocks.empty()) {
    refuse("a shortcut has nothing below");
  }
  ShortcutRecord& record = block.shortcut;
  record.join = xnor ? Join::xnor : Join::either;
  record.source = reader.within(0, program.blocks.size() - 1, "the source of a shortcut");
  record.codes = reader.offset_or_absent();
  Block& source = program.blocks[record.source];
  const std::size_t channels = block.norm.channels;
  if (source.pixels() != block.pixels() || source.norm.channels != channels) {
    refuse("a shortcut does not fit");
  }
  if (++source.copies > most_copies) {
    refuse("too many shortcuts read one block");
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
