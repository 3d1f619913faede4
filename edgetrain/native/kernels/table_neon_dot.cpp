#include "edgetrain/isa.hpp"
#include "isa/neon_dot.hpp"
#include "table.hpp"

namespace edgetrain {

const Kernels& neon_dot_kernels() {
  // Nothing in a depthwise convolution is a dot product.
  static const Kernels table = make_table<NeonDot>(neon_kernels().depthwise);
  return table;
}

}  // namespace edgetrain
