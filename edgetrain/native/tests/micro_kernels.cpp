// Compiled once an instruction set, with ISA_HEADER and ISA naming it.
#include "micro_kernels.hpp"

#include ISA_HEADER

namespace edgetrain {

template <>
const MicroKernels& micro_kernels<ISA>() {
  static constexpr MicroKernels table = {
      ISA::name,
      &ISA::sign_word,
      &ISA::at_least,
      &ISA::xnor,
      &ISA::dot,
      {&ISA::interleave<ByteForm::plain>, &ISA::interleave<ByteForm::signs>,
       &ISA::interleave<ByteForm::centred>},
      {&ISA::transpose<ByteForm::plain>, &ISA::transpose<ByteForm::signs>,
       &ISA::transpose<ByteForm::centred>},
      &ISA::update_latents,
      &ISA::decode,
  };
  return table;
}

}  // namespace edgetrain
