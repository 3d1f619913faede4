// Compiled once an instruction set, with ISA_HEADER and ISA naming it.
#include "micro_kernels.hpp"

#include ISA_HEADER

namespace edgetrain {

namespace {

template <class Isa>
const LookupKernels* lookup_kernels() {
  if constexpr (Isa::has_lookup) {
    using Lookup = typename Isa::Lookup;
    static constexpr LookupKernels table = {&Lookup::sum_table, &Lookup::gather_bits,
                                            &Lookup::lookup_pixels, &Lookup::lookup_outputs};
    return &table;
  } else {
    return nullptr;
  }
}

}  // namespace

template <>
const MicroKernels& micro_kernels<ISA>() {
  static const MicroKernels table = {
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
      lookup_kernels<ISA>(),
  };
  return table;
}

}  // namespace edgetrain
