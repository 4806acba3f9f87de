// libjpeg with its errors as values. Internal to image/.
#pragma once

#include <csetjmp>
#include <cstdio>
// jpeglib.h needs size_t and FILE from the headers above.
#include <jerror.h>
#include <jpeglib.h>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

// One libjpeg decompressor. libjpeg reports an error by a call that must not return, so Run() is
// the one place that a longjmp comes back to; what it runs owns nothing that needs a destructor.
// A lost pixel is an error; junk between markers and odd versions, common in old photos, are not.
class JpegDecompressor {
 public:
  // An image of more progressive scans, or one that needs more than max_bytes of memory, is refused
  // with kResourceExhausted.
  JpegDecompressor(int max_scans, int64_t max_bytes);
  JpegDecompressor(const JpegDecompressor&) = delete;
  JpegDecompressor& operator=(const JpegDecompressor&) = delete;
  ~JpegDecompressor() { jpeg_destroy_decompress(&info); }

  template <typename Step>
  Status Run(Step step) {
    if (setjmp(return_point_) != 0) return Fail(code_, message_);
    step();
    return {};
  }
  // Within Run(), first of all: creates the decompressor.
  void Create();

  jpeg_decompress_struct info{};

 private:
  static JpegDecompressor* Self(j_common_ptr common) {
    return static_cast<JpegDecompressor*>(common->client_data);
  }
  [[noreturn]] void Leave(j_common_ptr common);

  const int max_scans_;
  const int64_t max_bytes_;
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf return_point_;
  ErrorCode code_ = ErrorCode::kDataLoss;
  char message_[JMSG_LENGTH_MAX + 64] = {};
};

}  // namespace ndpipe::photo
