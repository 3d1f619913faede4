// Makes the table of one instruction set from the templates.
#pragma once

#include "conv_backward.hpp"
#include "conv_forward.hpp"
#include "conv_lookup.hpp"
#include "depthwise.hpp"
#include "edgetrain/kernels.hpp"
#include "linear.hpp"
#include "norm.hpp"
#include "shortcut.hpp"

namespace edgetrain {

template <class Isa>
constexpr DepthwiseKernels depthwise_table() {
  return {&Depthwise<Isa>::forward, &Depthwise<Isa>::backward};
}

template <class Isa>
constexpr Kernels make_table(const DepthwiseKernels& depthwise = depthwise_table<Isa>()) {
  Kernels table = {
      Isa::name,
      &LinearKernels<Isa>::expand_signs,
      &LinearKernels<Isa>::forward,
      &LinearKernels<Isa>::backward,
      &ConvForward<Isa>::run,
      &ConvBackward<Isa>::run,
      nullptr,
      nullptr,
      nullptr,
      depthwise,
      &NormKernels<Isa>::sum,
      &NormKernels<Isa>::above,
      &NormKernels<Isa>::signs,
      &NormKernels<Isa>::gradient_sums,
      &NormKernels<Isa>::gradient_codes,
      &NormKernels<Isa>::decode_codes,
      &ShortcutKernels<Isa>::add_signs,
      &ShortcutKernels<Isa>::negate_unlike,
      &Isa::dot,
      &Isa::xnor,
  };
  if constexpr (Isa::has_lookup) {
    table.lookup_index = &ConvLookup<Isa>::index;
    table.lookup_input = &ConvLookup<Isa>::input;
    table.lookup_weights = &ConvLookup<Isa>::weights;
  }
  return table;
}

}  // namespace edgetrain
