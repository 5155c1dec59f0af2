// The colour conversions for CUDA devices.
#pragma once

#include "../colors.h"

namespace liif {

// Queue a conversion on `stream`, a cudaStream_t of `device`; all pointers of the parameters are to that device's memory. Null,
// or the name of CUDA's error and what it means, in static memory. The device is then the thread's current one: only who called
// knows whether the one before may be returned to, since that gives a device a context, and memory for it, that has none.
struct CudaError {
  const char *name, *text;
};
// Why nothing can run at all: no device, or a driver older than what this was built with. Null where something can.
CudaError cuda_problem();
CudaError to_rgb_cuda(const ColorParams&, int device, void* stream);
CudaError from_rgb_cuda(const ColorParams&, int device, void* stream);

}  // namespace liif
