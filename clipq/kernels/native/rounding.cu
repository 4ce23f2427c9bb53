// Rounding to a grid that is given, or to grids of the rows' own ranges; bit for bit clipq.quant's.
// Divisions are IEEE's, rounding is half to even, and comparisons let NaN through every clamp.
#include "rounding.h"

#include <cfloat>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>

namespace clipq {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocks = 1 << 20;  // more than any GPU runs at once: the rest is strided over

__device__ float wide(float x) { return x; }
__device__ float wide(__half x) { return __half2float(x); }
__device__ float wide(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ T narrow(float x);
template <>
__device__ float narrow<float>(float x) { return x; }
template <>
__device__ __half narrow<__half>(float x) { return __float2half_rn(x); }
template <>
__device__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }
template <>
__device__ int8_t narrow<int8_t>(float x) { return static_cast<int8_t>(x); }
template <>
__device__ uint8_t narrow<uint8_t>(float x) { return static_cast<uint8_t>(x); }

__device__ float clamped(float x, float low, float high) {
  return x < low ? low : (x > high ? high : x);
}

__device__ float stepped(float x, float scale, float low, float high) {
  return rintf(clamped(__fdiv_rn(x, scale), low, high));
}

template <typename In, typename Out, bool kCodes>
__global__ void static_kernel(Static given) {
  const In* x = static_cast<const In*>(given.x);
  Out* out = static_cast<Out*>(given.out);
  const int64_t count = given.rows * given.columns;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const int64_t row = i / given.columns;
    const int64_t at =
        given.scale_row == 0 ? 0 : row * given.scale_row + (i - row * given.columns) / given.group;
    const float scale = given.scale[at];
    const float zero = given.zero_point == nullptr ? 0.0f : given.zero_point[at];
    const float steps = stepped(wide(x[i]), scale, given.low - zero, given.high - zero);
    if (kCodes) {
      out[i] = narrow<Out>(steps == steps ? steps + zero : zero);  // no integer holds NaN
    } else {
      out[i] = narrow<Out>(__fmul_rn(steps, scale));
    }
  }
}

struct Range {
  float least, most;
  bool unknown;
};

__device__ Range joined(Range a, Range b) {
  return {fminf(a.least, b.least), fmaxf(a.most, b.most), a.unknown || b.unknown};
}

// One block a part: its range by shuffles within warps, then across them; then it is rounded.
template <typename T>
__global__ void dynamic_kernel(Dynamic given) {
  __shared__ Range partial[kThreads / 32];
  const int64_t parts = given.rows * given.groups;
  for (int64_t part = blockIdx.x; part < parts; part += gridDim.x) {
    const int64_t row = part / given.groups, start = (part % given.groups) * given.group;
    const int64_t left = given.columns - start;
    const int64_t size = left < given.group ? left : given.group;
    const T* x = static_cast<const T*>(given.x) + row * given.columns + start;
    T* out = static_cast<T*>(given.out) + row * given.columns + start;
    Range mine = {0.0f, 0.0f, false};  // every range contains zero
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
      const float value = wide(x[i]);
      mine = joined(mine, {value, value, value != value});
    }
    for (int offset = 16; offset > 0; offset /= 2) {
      mine = joined(mine, {__shfl_down_sync(~0u, mine.least, offset),
                           __shfl_down_sync(~0u, mine.most, offset),
                           __shfl_down_sync(~0u, static_cast<int>(mine.unknown), offset) != 0});
    }
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = mine;
    __syncthreads();
    Range all = partial[0];
    for (int warp = 1; warp < kThreads / 32; ++warp) all = joined(all, partial[warp]);
    __syncthreads();  // before the next part overwrites what a slow warp still reads
    float scale, low, high;
    if (given.asymmetric) {
      scale = __fsub_rn(__fdiv_rn(all.most, given.levels), __fdiv_rn(all.least, given.levels));
      scale = clamped(scale, FLT_MIN, CUDART_INF_F);
      const float zero = rintf(clamped(__fdiv_rn(-all.least, scale), 0.0f, given.levels));
      low = 0.0f - zero;
      high = given.levels - zero;
    } else {
      high = (given.levels - 1.0f) / 2.0f;
      low = -high - 1.0f;
      scale = clamped(__fdiv_rn(fmaxf(all.most, -all.least), high), FLT_MIN, CUDART_INF_F);
    }
    if (all.unknown) scale = CUDART_NAN_F;
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
      out[i] = narrow<T>(__fmul_rn(stepped(wide(x[i]), scale, low, high), scale));
    }
  }
}

int blocks_for(int64_t wanted) {
  return static_cast<int>(wanted < kBlocks ? wanted : kBlocks);
}

template <typename In>
void launch_static(const Static& given, Mode mode, cudaStream_t stream) {
  const int blocks = blocks_for((given.rows * given.columns + kThreads - 1) / kThreads);
  switch (mode) {
    case Mode::int8:
      static_kernel<In, int8_t, true><<<blocks, kThreads, 0, stream>>>(given);
      break;
    case Mode::uint8:
      static_kernel<In, uint8_t, true><<<blocks, kThreads, 0, stream>>>(given);
      break;
    case Mode::fake:
      static_kernel<In, In, false><<<blocks, kThreads, 0, stream>>>(given);
      break;
  }
}

}  // namespace

cudaError_t round_static(const Static& given, Kind kind, Mode mode, cudaStream_t stream) {
  switch (kind) {
    case Kind::float32: launch_static<float>(given, mode, stream); break;
    case Kind::float16: launch_static<__half>(given, mode, stream); break;
    case Kind::bfloat16: launch_static<__nv_bfloat16>(given, mode, stream); break;
  }
  return cudaGetLastError();
}

cudaError_t round_dynamic(const Dynamic& given, Kind kind, cudaStream_t stream) {
  const int blocks = blocks_for(given.rows * given.groups);
  switch (kind) {
    case Kind::float32: dynamic_kernel<float><<<blocks, kThreads, 0, stream>>>(given); break;
    case Kind::float16: dynamic_kernel<__half><<<blocks, kThreads, 0, stream>>>(given); break;
    case Kind::bfloat16:
      dynamic_kernel<__nv_bfloat16><<<blocks, kThreads, 0, stream>>>(given);
      break;
  }
  return cudaGetLastError();
}

}  // namespace clipq
