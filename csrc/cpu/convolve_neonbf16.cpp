// ARM's BF16 extension; f32 work goes to NEON.
#include "convolve_simd.h"
#include "floats_neonbf16.h"

namespace liif {

void convolve_neonbf16(const ConvolveParams& p, int64_t begin, int64_t end) {
  p.type == Type::bf16 ? convolve_rows<Bf16Pairs>(p, begin, end) : convolve_neon(p, begin, end);
}

}  // namespace liif
