// What commands print: JSON, tables, and numbers for people.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ndpipe/rpc/operator.h"

namespace ndpipe::cli {

using Json = nlohmann::ordered_json;

Json ToJson(const rpc::StoreStatus& store);
Json ToJson(const rpc::JobStatus& job);
Json ToJson(const rpc::ClusterStatus& status);
Json ToJson(const rpc::VersionStatus& version);
Json ToJson(const rpc::ServeReport& report);
Json ToJson(const rpc::VersionComparison& comparison);
Json ToJson(const rpc::SearchHit& hit);
Json ToJson(const rpc::FailedPhoto& photo);

template <typename T>
Json ToJson(const std::vector<T>& items) {
  Json list = Json::array();
  for (const auto& item : items) list.push_back(ToJson(item));
  return list;
}

void PrintJson(const Json& json);  // indented, to stdout; text that is no UTF-8 is replaced

// Columns padded to their widest cell; the first row is the heading.
void PrintTable(const std::vector<std::vector<std::string>>& rows);

std::string FormatBytes(int64_t bytes);     // "1.4 MB"
std::string FormatSeconds(double seconds);  // "42 s", "3 min 20 s", "2 h 5 min"

}  // namespace ndpipe::cli
