// The scalar resampler: the plainest statement of the algorithm, and what runs where no vector code was built.
#include "resample_rows.h"

namespace liif {
namespace {

struct Scalar {
  static Part part(const ResampleParams& p, int64_t left) { return part_from(p, left); }
  static void begin(const ResampleParams&, const Part&, Strip&) {}
  template <class Elem>
  static void split_row(const ResampleParams& p, const Part& part, int64_t row, float (*out)[3][kStrip]) {
    liif::split_row<Elem>(p, part, row, out);
  }
  static bool together(const TapTable&, int64_t) { return false; }
  static void add_rows(const Part& part, const float* const* rows, const float* taps, int64_t, float* const* out) {
    for (int64_t x = 0; x < (part.to - part.from) * kFactor; ++x) {
      float sum = 0;
      for (int k = 0; k < kTaps; ++k) sum += taps[k] * rows[k][x];
      out[0][x] = sum;
    }
  }
  static void columns(const ResampleParams& p, const Part& part, int64_t row, const float (*sum)[kStrip], const Strip&) {
    for (int64_t j = part.left; j < part.right; ++j) resample_column(p, row, j, part.fine(), sum);
  }
};

}  // namespace

void resample_scalar(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Scalar>(p, begin, end, strip);
}

}  // namespace liif
