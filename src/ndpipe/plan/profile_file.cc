#include "ndpipe/plan/profile_file.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"

namespace ndpipe::plan {
namespace {

using nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr int kFormat = 1;

// A measured quantity: finite and not negative.
double Measured(const json& from, const char* key) {
  const double value = from.at(key).get<double>();
  if (!std::isfinite(value) || value < 0) throw std::out_of_range(key);
  return value;
}
int64_t Count(const json& from, const char* key) {
  const auto value = from.at(key).get<int64_t>();
  if (value < 0) throw std::out_of_range(key);
  return value;
}
double Share(const json& from, const char* key) {
  const double value = Measured(from, key);
  if (value > 1) throw std::out_of_range(key);
  return value;
}
Hash256 HashOf(const json& from, const char* key) {
  const auto hash = Hash256::FromHex(from.at(key).get<std::string>());
  if (!hash) throw std::out_of_range(key);
  return *hash;
}

json ToJson(const CutRate& rate) {
  return {{"cut", rate.cut},
          {"feature_bytes", rate.feature_bytes},
          {"seconds_a_photo", rate.seconds_a_photo},
          {"cached_share", rate.cached_share}};
}
CutRate CutRateOf(const json& from) {
  return {.cut = from.at("cut").get<std::string>(),
          .feature_bytes = Count(from, "feature_bytes"),
          .seconds_a_photo = Measured(from, "seconds_a_photo"),
          .cached_share = Share(from, "cached_share")};
}

json ToJson(const StoreProfile& store) {
  json cuts = json::array();
  for (const auto& cut : store.cuts) cuts.push_back(ToJson(cut));
  return {{"store", store.store},
          {"name", store.name},
          {"device", store.device},
          {"program", store.program},
          {"backbone", store.backbone.Hex()},
          {"precision", model::PrecisionName(store.precision)},
          {"measured_us", store.measured_us},
          {"num_photos", store.num_photos},
          {"decode_seconds_a_photo", store.decode_seconds_a_photo},
          {"sidecar_share", store.sidecar_share},
          {"cuts", std::move(cuts)},
          {"bytes_per_second", store.bytes_per_second},
          {"send_seconds_a_byte", store.send_seconds_a_byte},
          {"network_measured_us", store.network_measured_us}};
}
StoreProfile StoreOf(const json& from) {
  StoreProfile store;
  from.at("store").get_to(store.store);
  from.at("name").get_to(store.name);
  from.at("device").get_to(store.device);
  from.at("program").get_to(store.program);
  store.backbone = HashOf(from, "backbone");
  const auto precision = model::ParsePrecision(from.at("precision").get<std::string>());
  if (!precision) throw std::out_of_range("precision");
  store.precision = *precision;
  store.measured_us = Count(from, "measured_us");
  store.num_photos = Count(from, "num_photos");
  store.decode_seconds_a_photo = Measured(from, "decode_seconds_a_photo");
  store.sidecar_share = Share(from, "sidecar_share");
  for (const auto& cut : from.at("cuts")) store.cuts.push_back(CutRateOf(cut));
  store.bytes_per_second = Measured(from, "bytes_per_second");
  store.send_seconds_a_byte = Measured(from, "send_seconds_a_byte");
  store.network_measured_us = Count(from, "network_measured_us");
  return store;
}

json ToJson(const TrainingRate& rate) {
  return {{"cut", rate.cut.tensor},
          {"dims", rate.cut.dims},
          {"feature_bytes", rate.cut.feature_bytes},
          {"body_flops", rate.cut.body_flops},
          {"tail_flops", rate.cut.tail_flops},
          {"tail_parameters", rate.cut.tail_parameters},
          {"seconds_a_photo", rate.seconds_a_photo},
          {"evaluate_a_photo", rate.evaluate_a_photo}};
}
TrainingRate TrainingRateOf(const json& from) {
  TrainingRate rate;
  from.at("cut").get_to(rate.cut.tensor);
  from.at("dims").get_to(rate.cut.dims);
  rate.cut.feature_bytes = Count(from, "feature_bytes");
  rate.cut.body_flops = Count(from, "body_flops");
  rate.cut.tail_flops = Count(from, "tail_flops");
  rate.cut.tail_parameters = Count(from, "tail_parameters");
  rate.seconds_a_photo = Measured(from, "seconds_a_photo");
  rate.evaluate_a_photo = Measured(from, "evaluate_a_photo");
  return rate;
}

json ToJson(const TunerProfile& tuner) {
  json cuts = json::array();
  for (const auto& cut : tuner.cuts) cuts.push_back(ToJson(cut));
  return {{"backbone", tuner.backbone.Hex()},
          {"program", tuner.program},
          {"num_threads", tuner.num_threads},
          {"num_classes", tuner.num_classes},
          {"measured_us", tuner.measured_us},
          {"cuts", std::move(cuts)},
          {"num_listed", tuner.num_listed},
          {"num_alike", tuner.num_alike},
          {"num_thinned", tuner.num_thinned},
          {"num_too_large", tuner.num_too_large},
          {"bytes_per_second", tuner.bytes_per_second},
          {"network_measured_us", tuner.network_measured_us},
          {"network_stores", tuner.network_stores}};
}
TunerProfile TunerOf(const json& from) {
  TunerProfile tuner;
  tuner.backbone = HashOf(from, "backbone");
  from.at("program").get_to(tuner.program);
  tuner.num_threads = static_cast<int>(Count(from, "num_threads"));
  tuner.num_classes = Count(from, "num_classes");
  tuner.measured_us = Count(from, "measured_us");
  for (const auto& cut : from.at("cuts")) tuner.cuts.push_back(TrainingRateOf(cut));
  tuner.num_listed = Count(from, "num_listed");
  tuner.num_alike = Count(from, "num_alike");
  tuner.num_thinned = Count(from, "num_thinned");
  tuner.num_too_large = Count(from, "num_too_large");
  tuner.bytes_per_second = Measured(from, "bytes_per_second");
  tuner.network_measured_us = Count(from, "network_measured_us");
  tuner.network_stores = Count(from, "network_stores");
  return tuner;
}

}  // namespace

void Keep(Profiles& profiles, StoreProfile store) {
  std::erase_if(profiles.stores, [&](const auto& other) {
    return other.store == store.store && other.backbone == store.backbone &&
           other.precision == store.precision;
  });
  profiles.stores.push_back(std::move(store));
}

void Keep(Profiles& profiles, TunerProfile tuner) {
  std::erase_if(profiles.tuners,
                [&](const auto& other) { return other.backbone == tuner.backbone; });
  profiles.tuners.push_back(std::move(tuner));
}

const StoreProfile* FindStore(const Profiles& profiles, const std::string& store,
                              const Hash256& backbone, model::Precision precision) {
  const auto found = std::ranges::find_if(profiles.stores, [&](const auto& other) {
    return other.store == store && other.backbone == backbone && other.precision == precision;
  });
  return found == profiles.stores.end() ? nullptr : &*found;
}

const TunerProfile* FindTuner(const Profiles& profiles, const Hash256& backbone) {
  const auto found = std::ranges::find_if(
      profiles.tuners, [&](const auto& other) { return other.backbone == backbone; });
  return found == profiles.tuners.end() ? nullptr : &*found;
}

std::string FormatProfiles(const Profiles& profiles) {
  json stores = json::array(), tuners = json::array();
  for (const auto& store : profiles.stores) stores.push_back(ToJson(store));
  for (const auto& tuner : profiles.tuners) tuners.push_back(ToJson(tuner));
  const json file = {{"format", kFormat}, {"stores", stores}, {"tuners", tuners}};
  return file.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<Profiles> ParseProfiles(const std::string& text) {
  try {
    const json file = json::parse(text);
    if (file.at("format").get<int>() != kFormat) throw std::out_of_range("format");
    Profiles profiles;
    for (const auto& store : file.at("stores")) profiles.stores.push_back(StoreOf(store));
    for (const auto& tuner : file.at("tuners")) profiles.tuners.push_back(TunerOf(tuner));
    return profiles;
  } catch (const std::exception& error) {  // of json, and of the checks above
    return Fail(ErrorCode::kDataLoss, "the profiles are damaged (" + std::string(error.what()) +
                                          "): `ndpipe plan --profile` measures them again");
  }
}

Result<Profiles> ReadProfiles(const std::filesystem::path& file) {
  const auto bytes = ReadFile(file, kMaxFileBytes);
  if (!bytes && bytes.error().code == ErrorCode::kNotFound) return Profiles();
  if (!bytes) return std::unexpected(bytes.error());
  auto profiles = ParseProfiles(std::string(AsText(*bytes)));
  if (!profiles) return std::unexpected(std::move(profiles).error().Within(file.string()));
  return profiles;
}

Status WriteProfiles(const std::filesystem::path& file, const Profiles& profiles) {
  return WriteFileDurably(file, FormatProfiles(profiles));
}

}  // namespace ndpipe::plan
