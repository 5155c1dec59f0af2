// The scalar resampler: the plainest statement of the algorithm, and what runs where no vector code was built.
#include "resample_rows.h"

namespace liif {
namespace {

struct Scalar {
  static constexpr int L = 1;
  static void add_rows(const float* const* rows, const float* taps, int64_t count, float* out) {
    for (int64_t x = 0; x < count; ++x) {
      float sum = 0;
      for (int k = 0; k < kTaps; ++k) sum += taps[k] * rows[k][x];
      out[x] = sum;
    }
  }
  static void columns(const ResampleParams& p, int64_t row, int64_t begin, int64_t end, Run, int64_t fine,
                      const float (*sum)[kStrip]) {
    for (int64_t j = begin; j < end; ++j) resample_column(p, row, j, fine, sum);
  }
};

}  // namespace

void resample_scalar(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Scalar>(p, begin, end, strip);
}

}  // namespace liif
