#include "edgetrain/isa.hpp"

#include <stdexcept>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace edgetrain {

namespace {

#if defined(__aarch64__)
// Only Linux is asked; elsewhere the kernels for every ARMv8 processor do.
bool has_dot_products() {
#if defined(__linux__)
  // HWCAP_ASIMDDP of the kernel's interface, which older headers lack.
  return (getauxval(AT_HWCAP) & (1UL << 20)) != 0;
#else
  return false;
#endif
}
#endif

// A table is asked for only where it runs: the code that fills it is compiled for its instructions.
struct Candidate {
  const char* name;
  const Kernels& (*kernels)();
  bool runs;
};

std::vector<Candidate> candidates() {
  std::vector<Candidate> all = {{"portable", &portable_kernels, true}};
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("popcnt");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
                      __builtin_cpu_supports("avx512vpopcntdq");
  all.push_back({"avx2", &avx2_kernels, avx2});
  all.push_back({"avx512", &avx512_kernels, avx512});
#elif defined(__aarch64__)
  all.push_back({"neon", &neon_kernels, true});
  all.push_back({"neon_dot", &neon_dot_kernels, has_dot_products()});
#endif
  return all;
}

}  // namespace

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates()) {
    if (candidate.runs) {
      names.emplace_back(candidate.name);
    }
  }
  return names;
}

const Kernels& select_kernels(const std::string& name) {
  const std::vector<Candidate> all = candidates();
  const Candidate* fastest = nullptr;
  std::string known;
  for (const Candidate& candidate : all) {
    known += known.empty() ? "" : ", ";
    known += candidate.name;
    if (candidate.runs) {
      fastest = &candidate;
    }
    if (name == candidate.name) {
      if (!candidate.runs) {
        throw std::invalid_argument("this processor cannot run the kernels '" + name +
                                    "'; unset EDGETRAIN_ISA");
      }
      return candidate.kernels();
    }
  }
  if (!name.empty()) {
    throw std::invalid_argument("EDGETRAIN_ISA is '" + name + "': choose one of " + known +
                                ", or unset it");
  }
  return fastest->kernels();
}

}  // namespace edgetrain
