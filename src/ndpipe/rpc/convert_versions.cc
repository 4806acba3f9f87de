// Of convert_operator.h, what serving and comparing model versions takes.
#include "ndpipe/rpc/convert_operator.h"
#include "ndpipe/rpc/foreign.h"

namespace ndpipe::rpc {
namespace {

void ToWire(const AccuracyComparison& from, wire::AccuracyComparison& to) {
  to.set_photos(from.photos);
  to.set_first_right(from.first_right);
  to.set_second_right(from.second_right);
}

Result<AccuracyComparison> FromWire(const wire::AccuracyComparison& from) {
  NDP_RETURN_IF_ERROR(CheckCount(from.photos(), "AccuracyComparison.photos"));
  for (const int64_t right : {from.first_right(), from.second_right()}) {
    NDP_RETURN_IF_ERROR(CheckRange(right, 0, from.photos(), "AccuracyComparison"));
  }
  return AccuracyComparison{.photos = from.photos(),
                            .first_right = from.first_right(),
                            .second_right = from.second_right()};
}

}  // namespace

void ToWire(const ServeReport& from, wire::ServeVersionResponse& to) {
  to.set_version(from.version);
  to.set_serves(from.serves);
  to.set_job(from.job);
  to.set_labelled(from.labelled);
  to.set_failed(from.failed);
  to.set_pending(from.pending);
}

Result<ServeReport> FromWire(const wire::ServeVersionResponse& from) {
  for (const int64_t count : {from.labelled(), from.failed(), from.pending()}) {
    NDP_RETURN_IF_ERROR(CheckCount(count, "ServeVersionResponse"));
  }
  return ServeReport{.version = from.version(),
                     .serves = from.serves(),
                     .job = from.job(),
                     .labelled = from.labelled(),
                     .failed = from.failed(),
                     .pending = from.pending()};
}

void ToWire(const VersionComparison& from, wire::ComparisonCounts& to) {
  to.set_same(from.same);
  to.set_changed(from.changed);
  to.set_only_first(from.only_first);
  to.set_only_second(from.only_second);
  ToWire(from.all, *to.mutable_all());
  ToWire(from.unseen, *to.mutable_unseen());
}

Result<VersionComparison> FromWire(const wire::ComparisonCounts& from) {
  for (const int64_t count : {from.same(), from.changed(), from.only_first(), from.only_second()}) {
    NDP_RETURN_IF_ERROR(CheckCount(count, "ComparisonCounts"));
  }
  VersionComparison to;
  to.same = from.same();
  to.changed = from.changed();
  to.only_first = from.only_first();
  to.only_second = from.only_second();
  NDP_ASSIGN(to.all, FromWire(from.all()));
  NDP_ASSIGN(to.unseen, FromWire(from.unseen()));
  return to;
}

void ToWire(const ClassComparison& from, wire::ClassComparison& to) {
  to.set_label(CleanText(from.label, kMaxTextBytes));
  to.set_first(from.first);
  to.set_second(from.second);
  to.set_both(from.both);
}

Result<ClassComparison> FromWire(const wire::ClassComparison& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.label(), kMaxTextBytes, "ClassComparison.label"));
  for (const int64_t count : {from.first(), from.second(), from.both()}) {
    NDP_RETURN_IF_ERROR(CheckCount(count, "ClassComparison"));
  }
  return ClassComparison{
      .label = from.label(), .first = from.first(), .second = from.second(), .both = from.both()};
}

void ToWire(const ChangedPhoto& from, wire::ChangedPhoto& to) {
  to.set_photo_id(CleanText(from.photo_id, kMaxIdBytes));
  to.set_first(CleanText(from.first, kMaxTextBytes));
  to.set_second(CleanText(from.second, kMaxTextBytes));
  to.set_first_confidence(from.first_confidence);
  to.set_second_confidence(from.second_confidence);
  to.set_user_label(CleanText(from.user_label, kMaxTextBytes));
  to.set_store(CleanText(from.store, kMaxIdBytes));
  to.set_path(from.path);
  to.set_origin(CleanText(from.origin, kMaxPathBytes));
}

Result<ChangedPhoto> FromWire(const wire::ChangedPhoto& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.photo_id(), kMaxIdBytes, "ChangedPhoto.photo_id"));
  NDP_RETURN_IF_ERROR(CheckText(from.first(), kMaxTextBytes, "ChangedPhoto.first"));
  NDP_RETURN_IF_ERROR(CheckText(from.second(), kMaxTextBytes, "ChangedPhoto.second"));
  NDP_RETURN_IF_ERROR(CheckText(from.user_label(), kMaxTextBytes, "ChangedPhoto.user_label"));
  for (const double confidence : {from.first_confidence(), from.second_confidence()}) {
    NDP_RETURN_IF_ERROR(CheckFinite(confidence, 0, 1, "ChangedPhoto.confidence"));
  }
  NDP_RETURN_IF_ERROR(CheckText(from.store(), kMaxIdBytes, "ChangedPhoto.store"));
  NDP_RETURN_IF_ERROR(CheckPath(from.path(), "ChangedPhoto.path"));
  NDP_RETURN_IF_ERROR(CheckText(from.origin(), kMaxPathBytes, "ChangedPhoto.origin"));
  return ChangedPhoto{.photo_id = from.photo_id(),
                      .first = from.first(),
                      .second = from.second(),
                      .first_confidence = from.first_confidence(),
                      .second_confidence = from.second_confidence(),
                      .user_label = from.user_label(),
                      .store = from.store(),
                      .path = from.path(),
                      .origin = from.origin()};
}

}  // namespace ndpipe::rpc
