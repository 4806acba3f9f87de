#include "ndpipe/photo/image/jpeg_decompressor.h"

namespace ndpipe::photo {
namespace {

bool LosesPixels(int message) {
  return message == JWRN_JPEG_EOF || message == JWRN_HIT_MARKER || message == JWRN_HUFF_BAD_CODE ||
         message == JWRN_MUST_RESYNC;
}

}  // namespace

JpegDecompressor::JpegDecompressor(int max_scans, int64_t max_bytes)
    : max_scans_(max_scans), max_bytes_(max_bytes) {
  info.err = jpeg_std_error(&errors_);
  errors_.error_exit = [](j_common_ptr common) { Self(common)->Leave(common); };
  errors_.emit_message = [](j_common_ptr common, int level) {
    if (level < 0 && LosesPixels(common->err->msg_code)) Self(common)->Leave(common);
  };
  errors_.output_message = [](j_common_ptr) {};
  info.client_data = this;
}

void JpegDecompressor::Create() {
  jpeg_create_decompress(&info);  // clears what is set below
  info.mem->max_memory_to_use = static_cast<long>(max_bytes_);
  progress_.progress_monitor = [](j_common_ptr common) {
    JpegDecompressor* self = Self(common);
    if (self->info.input_scan_number <= self->max_scans_) return;
    self->code_ = ErrorCode::kResourceExhausted;
    std::snprintf(self->message_, sizeof(self->message_), "more than %d progressive scans",
                  self->max_scans_);
    std::longjmp(self->return_point_, 1);
  };
  info.progress = &progress_;
}

void JpegDecompressor::Leave(j_common_ptr common) {
  const int what = common->err->msg_code;
  if (what == JERR_OUT_OF_MEMORY || what == JERR_NO_BACKING_STORE) {
    code_ = ErrorCode::kResourceExhausted;
    std::snprintf(message_, sizeof(message_),
                  "the JPEG is too large: decoding it takes more than %lld MiB of memory",
                  static_cast<long long>(max_bytes_ >> 20));
  } else {
    code_ = ErrorCode::kDataLoss;
    char text[JMSG_LENGTH_MAX];
    common->err->format_message(common, text);
    std::snprintf(message_, sizeof(message_), "the JPEG is %s: %s",
                  what == JWRN_JPEG_EOF ? "truncated" : "broken", text);
  }
  std::longjmp(return_point_, 1);
}

}  // namespace ndpipe::photo
