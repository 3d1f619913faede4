#include "edgetrain/isa.hpp"
#include "isa/neon_dot.hpp"
#include "table.hpp"

namespace edgetrain {

const Kernels& neon_dot_kernels() {
  static constexpr Kernels table = make_table<NeonDot>();
  return table;
}

}  // namespace edgetrain
